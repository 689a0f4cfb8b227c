// How images of each category become model input, and how the heatmap returns to the image: as inspect_kd/datasets/presentation.py.
#pragma once

#include <algorithm>
#include <functional>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "alignment.hpp"
#include "pose.hpp"
#include "strict_json.hpp"
#include "view.hpp"
#include "zones.hpp"

namespace inspect_kd {

constexpr double kNotFoundScore = 1e6;  // above every threshold

/// An aligned part is cut at this multiple of the model's resolution where the image has more.
constexpr int kDetail = 2;
constexpr std::size_t kMostPresentations = 1000;

/// An image ready to be cut into frames.
struct Prepared {
    cv::Mat image;  // the original one
    View view;
    std::optional<Matrix> matrix;  // from the image into the reference frame; none without alignment
    cv::Size frame;                // the reference frame's size
    std::optional<std::string> fault;
    double quality = 0;
    std::optional<std::string> category;  // the recognised one
    const Zones* zones = nullptr;         // those of the picture, whose ignored places are painted over

    /// The reference frame with the part, or without alignment the image itself: at full resolution, or shrunk where nothing else is used.
    cv::Mat picture() const {
        if (!matrix) return zones ? zones->blank(image) : image;
        const int detailed = kDetail * view.size;
        if (!zones && !view.tile && std::min(frame.width, frame.height) >= detailed) return cut_shrunk(image, *matrix, frame, detailed);
        const cv::Mat cut = cut_frame(image, *matrix, frame);
        return zones ? zones->blank(cut) : cut;
    }
};

struct ImagePrediction {
    double score = 0;
    cv::Mat heatmap;  // over the whole image
    std::optional<std::string> not_found, category;
};

struct Presentation {
    std::string category;
    View view;
    std::optional<Alignment> alignment;
    std::optional<Zones> zones;
    double foreign_quality = 0;  // the highest that parts of categories without alignment reach

    Prepared prepare(const cv::Mat& image) const {
        if (!alignment) {
            check_frame(image.size());
            return {image, view, {}, {}, {}, 0, {}, own_zones()};
        }
        const Located found = alignment->locate(image);
        const cv::Size frame = alignment->frame();
        // Where nothing is found the whole image is shown to the model: people then see where it differs.
        const Matrix matrix = found.pose ? found.pose->matrix : resizing(image.size(), frame);
        const double quality = found.pose ? found.pose->quality / std::max(alignment->min_quality, 1e-6) : 0.0;
        // Without a pose, zones have no place.
        return {image, view, matrix, frame, found.fault, quality, {}, found.fault ? nullptr : own_zones()};
    }

    /// Refuse an image of another size than the one on which zones were drawn.
    void check_frame(cv::Size image) const {
        if (!zones || image == zones->frame()) return;
        throw BadInput(write_size(image) + " pixels; its category's zones were drawn on " + write_size(zones->frame()));
    }

    void check_size(cv::Size image) const {
        if (!alignment) return view.check_size(image);
        if (std::max(image.width, image.height) <= kLargestFrame) return;
        throw BadInput(std::to_string(image.width) + "x" + std::to_string(image.height) +
                       " pixels; a side of an image with a part to align has at most " + std::to_string(kLargestFrame) +
                       ": crop the image");
    }

private:
    const Zones* own_zones() const { return zones ? &*zones : nullptr; }
};

/// Predicts a frame, from its pixels and its weights (see Zones); the weights are empty for an artifact without zones.
using PredictFrame = std::function<FramePrediction(const cv::Mat&, const cv::Mat&)>;

/// The presentation of each category, or one for all.
class Presentations {
public:
    Presentations() = default;
    explicit Presentations(View view) : all_{{"", view, std::nullopt, std::nullopt, 0}}, has_categories_(false) {}
    explicit Presentations(std::vector<Presentation> by_category) : all_(std::move(by_category)) {}

    bool has_zones() const {
        return std::any_of(all_.begin(), all_.end(), [](const Presentation& each) { return each.zones.has_value(); });
    }

    /// Refuse an image that would need too much memory.
    void check_size(cv::Size image, const std::optional<std::string>& category) const {
        if (const Presentation* own = of(category)) return own->check_size(image);
        for (const Presentation& each : all_) each.check_size(image);
    }

    /// Prepare an image of a category; without one, or with an unknown one, the category whose reference fits best is taken.
    Prepared prepare(const cv::Mat& image, const std::optional<std::string>& category) const {
        if (const Presentation* own = of(category)) return own->prepare(image);
        const auto is_like_the_first = [&](const Presentation& each) { return !each.alignment && !each.zones && each.view == all_[0].view; };
        return std::all_of(all_.begin(), all_.end(), is_like_the_first) ? all_[0].prepare(image) : recognise(image);
    }

    /// `weights_side`: side of the weights that the artifact takes, if it takes any. Without zones all weights are 1.
    ImagePrediction predict(const cv::Mat& image, const std::optional<std::string>& category, const PredictFrame& predict_frame,
                            std::optional<int> weights_side) const {
        const Prepared prepared = prepare(image, category);
        std::vector<cv::Mat> weights;
        if (weights_side && prepared.zones != nullptr) weights = prepared.zones->frame_weights(prepared.view, *weights_side);
        const cv::Mat same = weights_side ? cv::Mat(*weights_side, *weights_side, CV_32F, cv::Scalar(1)) : cv::Mat();
        const auto predict_numbered = [&](const cv::Mat& pixels, std::size_t number) {
            return predict_frame(pixels, weights.empty() ? same : weights.at(number));
        };
        FramePrediction frame = prepared.view.predict(prepared.picture(), predict_numbered);
        if (prepared.matrix) frame.heatmap = heatmap_in_image(frame.heatmap, *prepared.matrix, prepared.frame, image.size());
        return {prepared.fault ? kNotFoundScore : frame.score, frame.heatmap, prepared.fault, prepared.category};
    }

private:
    const Presentation* of(const std::optional<std::string>& category) const {
        if (!category || !has_categories_) return nullptr;
        const auto own = std::find_if(all_.begin(), all_.end(), [&](const auto& each) { return each.category == *category; });
        return own == all_.end() ? nullptr : &*own;
    }

    Prepared recognise(const cv::Mat& image) const {
        // The best of each. A part that is not found is still of its category where it is more like the reference than others' parts are.
        std::optional<Prepared> found, missed, strange;
        const Presentation* plain = nullptr;
        bool plain_views_differ = false, plain_zones_differ = false;
        for (const Presentation& each : all_) {
            if (!each.alignment) {
                if (plain == nullptr) plain = &each;
                plain_views_differ |= !(plain->view == each.view);
                plain_zones_differ |= !(plain->zones == each.zones);
                continue;
            }
            Prepared prepared = each.prepare(image);
            prepared.category = each.category;
            const bool is_own = prepared.quality > each.foreign_quality;
            std::optional<Prepared>& best = !prepared.fault ? found : is_own ? missed : strange;
            if (!best || prepared.quality > best->quality) best = std::move(prepared);
        }
        if (found) return *found;
        if (missed) return *missed;
        if (plain == nullptr) return *strange;
        if (plain_views_differ) throw BadInput("the categories are cut into tiles of different sizes: name the image's category");
        if (plain_zones_differ) throw BadInput("the categories have different zones: name the image's category");
        return plain->prepare(image);
    }

    std::vector<Presentation> all_;
    bool has_categories_ = true;
};

/// Tile and overlap of one category, or of all.
inline View parse_view(const Json& content, int size) {
    View view{size, std::nullopt, 0.25};
    if (const Json tile = content.value("tile", Json()); !tile.is_null()) {
        if (!tile.is_number_integer() || tile > (1 << 16) || 2 * tile.get<std::int64_t>() < size) {
            throw BadInput("impossible tile " + tile.dump());
        }
        view.tile = tile.get<int>();
    }
    if (content.contains("overlap")) view.overlap = number_within(content, "overlap", 0, 0.75);
    return view;
}

inline Presentations parse_presentations(const Json& content, const std::set<std::string>& categories, int size) {
    std::vector<Presentation> presentations;
    if (content.empty() || content.size() > kMostPresentations) throw BadInput("its presentations are not those of 1 to 1000 categories");
    for (const auto& item : content.get_ref<const Json::object_t&>()) {
        const Json& own = item.second;
        refuse_other_fields(own, "presentation", {"tile", "overlap", "alignment", "reasons", "zones", "foreign_quality"});
        for (const Json& reason : own.at("reasons").get_ref<const Json::array_t&>()) reason.get_ref<const std::string&>();
        own.at("tile"), own.at("overlap");
        if (categories.count(item.first) == 0) throw BadInput("its presentations are not those of its categories");
        Presentation presentation{item.first, parse_view(own, size), std::nullopt, std::nullopt, 0};
        if (own.contains("foreign_quality")) presentation.foreign_quality = number_within(own, "foreign_quality", 0, 1);
        if (const Json& alignment = own.at("alignment"); !alignment.is_null()) presentation.alignment = parse_alignment(alignment);
        if (own.contains("zones")) presentation.zones = parse_zones(own.at("zones"));
        if (presentation.alignment && presentation.zones && presentation.zones->frame() != presentation.alignment->frame()) {
            throw BadInput("a category's zones have another frame than its alignment");
        }
        presentations.push_back(std::move(presentation));
    }
    if (presentations.size() != categories.size()) throw BadInput("its presentations are not those of its categories");
    return Presentations(std::move(presentations));
}

}  // namespace inspect_kd
