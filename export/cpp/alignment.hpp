// An alignment as it is stored on the card, checked as in inspect_kd/datasets/alignment/alignment.py.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include <opencv2/core.hpp>

#include "pose.hpp"
#include "read_image.hpp"
#include "silhouette.hpp"
#include "stored_picture.hpp"
#include "strict_json.hpp"
#include "template.hpp"

namespace inspect_kd {

constexpr int kLargestFrame = (1 << 15) - 2;  // OpenCV moves no larger image
constexpr std::size_t kLargestPicture = 1 << 20;

/// How the parts of one category are found, and how well they must agree with the reference.
struct Alignment {
    std::variant<SilhouetteReference, TemplateReference> reference;
    double min_quality = 0;

    cv::Size frame() const {
        return std::visit([](const auto& own) { return own.frame; }, reference);
    }

    Located locate(const cv::Mat& image) const {
        Located found = std::visit([&](const auto& own) { return own.locate(image); }, reference);
        if (!found.fault && !(found.pose->quality >= min_quality)) {
            char text[99];
            std::snprintf(text, sizeof text, "agrees with the reference by %.2f, a sound part by at least %.2f", found.pose->quality,
                          min_quality);
            found.fault = text;
        }
        return found;
    }
};

inline cv::Mat parse_picture(const Json& content, const char* key) {
    const auto is_allowed = [](std::uint32_t width, std::uint32_t height) {
        return width >= 1 && height >= 1 && width <= kTemplateSide && height <= kTemplateSide;
    };
    return decode_picture(content.at(key), "a picture of the alignment", kLargestPicture, "at most " + std::to_string(kTemplateSide), is_allowed);
}

inline cv::Size parse_frame(const Json& frame) {
    std::int64_t pixels = 1;
    bool possible = frame.is_array() && frame.size() == 2;
    for (std::size_t i = 0; possible && i < 2; ++i) {
        possible = frame[i].is_number_integer() && frame[i] >= 1 && frame[i] <= kLargestFrame;
        if (possible) pixels *= frame[i].get<std::int64_t>();
    }
    if (!possible || pixels > kLargestPixels) throw BadInput("the alignment has an impossible frame of " + frame.dump() + " pixels");
    return {frame[0].get<int>(), frame[1].get<int>()};
}

inline Alignment parse_alignment(const Json& content) {
    const std::string method = content.at("method");
    if (method != "silhouette" && method != "template") {
        throw BadInput("alignment by '" + method + "' is unknown to this program: update inspect-kd");
    }
    const cv::Size frame = parse_frame(content.at("frame"));
    const double min_quality = number_within(content, "min_quality", 0, 1);
    cv::Mat grey = parse_picture(content, "grey");
    if (method == "template") {
        refuse_other_fields(content, "alignment", {"method", "frame", "min_quality", "grey"});
        return {TemplateReference(frame, std::move(grey)), min_quality};
    }
    refuse_other_fields(content, "alignment", {"method", "frame", "min_quality", "grey", "anchor", "axis", "max_border_share", "mask"});
    SilhouetteReference reference;
    reference.frame = frame;
    const Json& anchor = content.at("anchor");
    if (!anchor.is_array() || anchor.size() != 2) throw BadInput("impossible anchor " + anchor.dump());
    const Json places{{"x", anchor[0]}, {"y", anchor[1]}};
    const auto place = [&](const char* key) { return number_within(places, key, -kLargestFrame, 2 * kLargestFrame); };
    reference.anchor = {place("x"), place("y")};
    if (!content.at("axis").is_null()) reference.axis = number_within(content, "axis", -2 * kPi, 2 * kPi);
    reference.max_border_share = number_within(content, "max_border_share", 0, 2);
    reference.mask = parse_picture(content, "mask");
    reference.grey = std::move(grey);
    if (reference.mask.size() != reference.grey.size()) throw BadInput("the alignment's pictures differ in size");
    return {std::move(reference), min_quality};
}

}  // namespace inspect_kd
