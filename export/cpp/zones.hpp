// Zones of a part: places that are not inspected, and places where more or less heat is tolerated than elsewhere. Checked, drawn and cut
// as in inspect_kd/datasets/zones.py.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <opencv2/core.hpp>

#include "polygon.hpp"
#include "read_image.hpp"
#include "stored_picture.hpp"
#include "strict_json.hpp"
#include "view.hpp"

namespace inspect_kd {

constexpr double kLeastTolerance = 0.05, kLargestTolerance = 4;
constexpr double kLeastInspected = 0.01;  // share of the frame
constexpr std::size_t kMostZones = 200, kMostCorners = 500, kLongestName = 100;
constexpr int kLargestZonesSide = 1 << 15;
constexpr std::size_t kLongestLabels = 1 << 21;  // in base 64
constexpr int kLabelIgnored = 255;  // 0 is inspected as usual, other labels are hundredths of a tolerance

inline std::string write_size(cv::Size size) { return std::to_string(size.width) + "x" + std::to_string(size.height); }

/// A polygon and what holds inside it.
struct Zone {
    std::string name;
    Polygon polygon;
    std::optional<double> tolerance;  // none: the place is ignored

    bool operator==(const Zone& other) const { return name == other.name && polygon == other.polygon && tolerance == other.tolerance; }
};

/// Average the weights of a square frame over `side` places along each axis.
inline cv::Mat average_places(const cv::Mat& weights, int side) {
    const int step = weights.rows / side;
    cv::Mat places(side, side, CV_32F);
    for (int row = 0; row < side; ++row) {
        for (int column = 0; column < side; ++column) {
            double sum = 0;
            for (int y = row * step; y < (row + 1) * step; ++y) {
                for (int x = column * step; x < (column + 1) * step; ++x) sum += double{weights.at<float>(y, x)};
            }
            places.at<float>(row, column) = static_cast<float>(sum / (step * step));
        }
    }
    return places;
}

/// The zones of one category, in a frame of known size.
class Zones {
public:
    /// `labels` is empty where there are polygons.
    Zones(cv::Size frame, std::vector<Zone> zones, cv::Mat labels, const cv::Scalar& fill)
        : frame_(frame), zones_(std::move(zones)), labels_(std::move(labels)), fill_(fill), ignored_(weights() == 0) {}

    cv::Size frame() const { return frame_; }

    /// 255 where nothing is inspected.
    const cv::Mat& ignored() const { return ignored_; }

    /// The factor of the heat at each pixel. Ignoring wins over a tolerance; of two tolerances the smaller counts.
    cv::Mat weights() const {
        if (!labels_.empty()) return weights_of_labels();
        cv::Mat weights(frame_, CV_32F, cv::Scalar(1));
        std::vector<const Zone*> lenient_first;
        for (const Zone& zone : zones_) lenient_first.push_back(&zone);
        const auto is_more_lenient = [](const Zone* one, const Zone* other) { return one->tolerance > other->tolerance; };
        std::stable_sort(lenient_first.begin(), lenient_first.end(), is_more_lenient);
        for (const Zone* zone : lenient_first) {
            fill_polygon(weights, zone->polygon, zone->tolerance ? static_cast<float>(1 / *zone->tolerance) : 0.0F);
        }
        return weights;
    }

    /// Paint ignored places over: a network's receptive field reaches into them from outside.
    cv::Mat blank(const cv::Mat& picture) const {
        cv::Mat painted = picture.clone();
        painted.setTo(fill_, ignored_);
        return painted;
    }

    /// Each frame's weights, averaged to `side` places along each axis. Kept, since every image of a category is cut alike.
    const std::vector<cv::Mat>& frame_weights(const View& view, int side) const {
        if (!cut_ || !(cut_->view == view) || cut_->side != side) {
            Cut cut{view, side, {}};
            const cv::Mat scaled = view.scaled_map(weights());
            for (const cv::Rect& place : view.places(scaled.size())) cut.weights.push_back(average_places(scaled(place), side));
            cut_ = std::move(cut);
        }
        return cut_->weights;
    }

    bool operator==(const Zones& other) const {
        const bool has_labels = !labels_.empty();
        return frame_ == other.frame_ && zones_ == other.zones_ && fill_ == other.fill_ && has_labels == !other.labels_.empty() &&
               (!has_labels || cv::countNonZero(labels_ != other.labels_) == 0);
    }

private:
    struct Cut {
        View view;
        int side;
        std::vector<cv::Mat> weights;
    };

    cv::Mat weights_of_labels() const {
        std::array<float, 256> weight_of_label{};
        for (int label = 0; label < kLabelIgnored; ++label) {
            weight_of_label[static_cast<std::size_t>(label)] = label == 0 ? 1.0F : 1.0F / (static_cast<float>(label) / 100.0F);
        }
        cv::Mat weights;
        cv::LUT(labels_, cv::Mat(1, 256, CV_32F, weight_of_label.data()), weights);
        return weights;
    }

    cv::Size frame_;
    std::vector<Zone> zones_;
    cv::Mat labels_;
    cv::Scalar fill_;
    cv::Mat ignored_;
    mutable std::optional<Cut> cut_;
};

inline Polygon parse_polygon(const Json& content, cv::Size frame, const std::string& zone) {
    const std::size_t count = content.is_array() ? content.size() : 0;
    if (count < 3 || count > kMostCorners) {
        throw BadInput(zone + "a polygon of " + std::to_string(count) + " points; it needs 3 to 500, as [[x, y], ...]");
    }
    Polygon corners;
    for (const Json& point : content) {
        if (!point.is_array() || point.size() != 2 || !point[0].is_number() || !point[1].is_number()) {
            throw BadInput(zone + "the point " + point.dump().substr(0, 60) + " is not [x, y]");
        }
        const cv::Point2d corner(point[0].get<double>(), point[1].get<double>());
        if (!(0 <= corner.x && corner.x <= frame.width && 0 <= corner.y && corner.y <= frame.height)) {
            throw BadInput(zone + "the point " + point.dump().substr(0, 60) + " lies outside the frame of " + write_size(frame) + " pixels");
        }
        corners.push_back(corner);
    }
    if (crosses_itself(corners)) throw BadInput(zone + "its outline crosses itself; list the corners in their order around the zone");
    if (!(polygon_area(corners) >= 1)) throw BadInput(zone + "its polygon has no area");
    return corners;
}

/// The tolerance, or none if the zone is ignored.
inline std::optional<double> parse_tolerance(const Json& content, const std::string& zone) {
    const Json ignore = content.contains("ignore") ? content.at("ignore") : Json(false), tolerance = content.value("tolerance", Json());
    if (!ignore.is_boolean()) throw BadInput(zone + "ignore is " + ignore.dump().substr(0, 40) + "; write true or false");
    if (ignore.get<bool>() != tolerance.is_null()) throw BadInput(zone + "give it either `ignore: true` or a `tolerance`");
    if (ignore.get<bool>()) return std::nullopt;
    if (!tolerance.is_number() || !(kLeastTolerance <= tolerance.get<double>() && tolerance.get<double>() <= kLargestTolerance)) {
        throw BadInput(zone + "tolerance " + tolerance.dump().substr(0, 40) + " is not a number from 0.05 to 4");
    }
    return tolerance.get<double>();
}

/// Characters are counted, and control characters of ASCII refused. Python also refuses further characters that print nothing.
inline std::string parse_zone_name(const Json& name) {
    if (name.is_string()) {
        const auto text = name.get<std::string>();
        const auto starts_character = [](std::uint8_t byte) { return (byte & 0xC0) != 0x80; };
        const auto is_control = [](std::uint8_t byte) { return byte < ' ' || byte == 0x7F; };
        const auto length = static_cast<std::size_t>(std::count_if(text.begin(), text.end(), starts_character));
        if (length >= 1 && length <= kLongestName && std::none_of(text.begin(), text.end(), is_control)) return text;
    }
    throw BadInput("a zone is called " + name.dump().substr(0, 60) + "; give each zone a `name` of at most 100 printable characters");
}

/// Read one zone, and refuse a polygon that encloses no part of the frame.
inline Zone parse_zone(const Json& content, cv::Size frame) {
    if (!content.is_object()) {
        throw BadInput("a zone is " + content.dump().substr(0, 60) + "; expected `name`, `polygon` and `ignore: true` or `tolerance`");
    }
    std::string name = parse_zone_name(content.value("name", Json()));
    const std::string zone = "zone '" + name + "': ";
    const std::set<std::string> known{"name", "ignore", "tolerance", "polygon"};
    for (const auto& item : content.items()) {
        if (known.count(item.key()) == 0) throw BadInput(zone + "unknown key '" + item.key() + "'");
    }
    Polygon polygon = parse_polygon(content.value("polygon", Json()), frame, zone);
    return {std::move(name), std::move(polygon), parse_tolerance(content, zone)};
}

/// Refuse zones that contradict each other, or that leave nothing to inspect.
inline void check_zones(const Zones& zones) {
    const double inspected = 1 - static_cast<double>(cv::countNonZero(zones.ignored())) / static_cast<double>(zones.ignored().total());
    if (inspected < kLeastInspected) {
        char text[99];
        std::snprintf(text, sizeof text, "the zones ignore the whole frame: %.1f %% of it would be inspected", 100 * inspected);
        throw BadInput(text);
    }
}

/// Refuse labels that are less than the least tolerance.
inline void check_labels(const cv::Mat& labels) {
    cv::Mat impossible;
    cv::inRange(labels, cv::Scalar(1), cv::Scalar(std::lround(100 * kLeastTolerance) - 1), impossible);
    if (cv::countNonZero(impossible) == 0) return;
    double least = 0;
    cv::minMaxLoc(labels, &least, nullptr, nullptr, nullptr, impossible);
    throw BadInput("the label picture has the value " + std::to_string(std::lround(least)) +
                   "; 0 is inspected as usual, 255 is ignored, and 5 to 254 are a tolerance in hundredths");
}

/// `count` whole numbers within limits, or none at all.
inline std::vector<int> whole_numbers(const Json& content, std::size_t count, int low, int high) {
    std::vector<int> numbers;
    if (!content.is_array() || content.size() != count) return numbers;
    for (const Json& number : content) {
        if (!number.is_number_integer() || number < low || number > high) return {};
        numbers.push_back(number.get<int>());
    }
    return numbers;
}

inline Zones parse_zones(const Json& content) {
    refuse_other_fields(content, "zones", {"frame", "fill", "zones", "labels"});
    if (content.contains("labels") == content.contains("zones")) throw BadInput("the artifact's card is damaged (zones)");
    const std::vector<int> sides = whole_numbers(content.at("frame"), 2, 1, kLargestZonesSide);
    if (sides.empty() || std::int64_t{sides[0]} * sides[1] > kLargestPixels) {
        throw BadInput("the zones have an impossible frame " + content.at("frame").dump().substr(0, 60));
    }
    const std::vector<int> fill = whole_numbers(content.at("fill"), 3, 0, 255);
    if (fill.empty()) throw BadInput("the zones have an impossible colour " + content.at("fill").dump().substr(0, 60));
    const cv::Size frame(sides[0], sides[1]);
    const cv::Scalar colour(fill[0], fill[1], fill[2]);
    if (content.contains("labels")) {
        const auto is_frame = [&](std::uint32_t width, std::uint32_t height) {
            return width == static_cast<std::uint32_t>(frame.width) && height == static_cast<std::uint32_t>(frame.height);
        };
        const cv::Mat labels = decode_picture(content.at("labels"), "the zones' label picture", kLongestLabels, write_size(frame), is_frame);
        check_labels(labels);
        Zones zones(frame, {}, labels, colour);
        check_zones(zones);
        return zones;
    }
    std::vector<Zone> drawn;
    std::set<std::string> names;
    const auto& list = content.at("zones").get_ref<const Json::array_t&>();
    if (list.size() > kMostZones) throw BadInput(std::to_string(list.size()) + " zones; at most 200");
    for (const Json& zone : list) {
        drawn.push_back(parse_zone(zone, frame));
        if (!names.insert(drawn.back().name).second) {
            throw BadInput("two zones are called '" + drawn.back().name + "'; give each its own name");
        }
    }
    Zones zones(frame, std::move(drawn), {}, colour);
    check_zones(zones);
    return zones;
}

}  // namespace inspect_kd
