// The artifact's card. Fields that decide (size, resize, presentations, thresholds, rates) are checked as in inspect_kd/export/card.py and
// calibrate.py; fields that this program does not use (recipe, licences) are not.
#pragma once

#include <algorithm>
#include <cmath>
#include <optional>
#include <set>
#include <stdexcept>
#include <string>
#include <utility>

#include "presentation.hpp"
#include "read_image.hpp"
#include "strict_json.hpp"

namespace inspect_kd {

constexpr double kHighestPooled = 2.0;  // of the reject threshold that is 1 by construction
constexpr double kHighestReject = 1e6;  // of one category: the score of a part that was not found, which must stay above it

struct EnvironmentFault : std::runtime_error {
    using std::runtime_error::runtime_error;
};

struct Thresholds {
    double reinspect = 0, reject = 0;

    /// A comparison with NaN is false, so NaN is NG.
    std::string decide(double score) const {
        if (score <= reinspect) return "OK";
        return score <= reject ? "RE-INSPECT" : "NG";
    }
};

struct Card {
    int size = 0;   // side of the square input
    int bits = 16;  // significant bits of 16-bit images
    Thresholds thresholds;
    Presentations presentations;
    std::optional<std::string> category;  // the one that was asked for, or the only one
};

/// The thresholds of one category; also checks the promised rates.
inline Thresholds parse_limits(const Json& limits, const std::string& category) {
    refuse_other_fields(limits, "limits", {"thresholds", "n", "reject_promise", "reinspect_promise", "asked_reject", "asked_reinspect"});
    const Json& values = limits.at("thresholds");
    refuse_other_fields(values, "thresholds", {"reinspect", "reject"});
    const Thresholds thresholds{real_number(values, "reinspect"), real_number(values, "reject")};
    if (thresholds.reinspect > thresholds.reject) throw BadInput("the calibration of '" + category + "' holds impossible thresholds");
    bool possible = limits.at("n").is_number_integer() && limits.at("n") > 0;
    for (const char* rate : {"reject_promise", "reinspect_promise", "asked_reject", "asked_reinspect"}) {
        const double value = real_number(limits, rate);
        possible = possible && value > 1e-9 && value <= 1;
    }
    if (!possible) throw BadInput("the calibration of '" + category + "' holds impossible rates or counts of parts");
    return thresholds;
}

/// Not used here, but refused where Python refuses them.
inline void check_scores(const Json& scores) {
    const auto is_finite = [](const Json& score) { return score.is_number() && std::isfinite(score.get<double>()); };
    const auto is_list = [&](const Json& values) { return values.is_array() && std::all_of(values.begin(), values.end(), is_finite); };
    if (!scores.is_object() || !std::all_of(scores.begin(), scores.end(), is_list)) {
        throw BadInput("the calibration is not complete (scores)");
    }
}

/// The thresholds of one category; checks those of all categories.
inline Thresholds parse_calibration(const Json& calibration, const std::string& category) {
    refuse_other_fields(calibration, "calibration", {"scale", "limits", "scores"});
    const Json& limits = calibration.at("limits");
    if (!limits.is_object() || !limits.contains("*") || !(real_number(calibration, "scale") > 0)) {
        throw BadInput("the calibration has no pooled thresholds or no usable scale");
    }
    for (const auto& item : limits.items()) parse_limits(item.value(), item.key());
    if (const double pooled = parse_limits(limits.at("*"), "*").reject; pooled > kHighestPooled) {
        throw BadInput("the pooled reject threshold is " + std::to_string(pooled) + "; at most 2 is allowed: export the artifact again");
    }
    for (const auto& item : limits.items()) {
        if (parse_limits(item.value(), item.key()).reject >= kHighestReject) {
            throw BadInput("the reject threshold of '" + item.key() + "' is not below 1000000: export the artifact again");
        }
    }
    if (calibration.contains("scores")) check_scores(calibration.at("scores"));
    if (!limits.contains(category)) throw BadInput("no calibration for category '" + category + "'");
    return parse_limits(limits.at(category), category);
}

inline Card parse_card(const std::string& text, std::optional<std::string> category) try {
    const Json content = parse_json(text);
    if (!content.at("schema").is_number_integer() || content.at("schema") != 1) {
        throw BadInput("artifact of schema " + content.at("schema").dump() + "; this program reads schema 1");
    }
    refuse_other_fields(content, "card", {"schema", "name", "target", "size", "resize", "tile", "overlap", "presentations", "categories",
                                          "calibration", "bits", "recipe", "recipe_digest", "data", "licences", "parity", "versions", "created"});
    if (const std::string resize = content.at("resize"); resize != kResize) {
        throw EnvironmentFault("wants images resized by '" + resize + "', this program has '" + std::string(kResize) + "'");
    }
    Card card;
    card.size = whole_number(content, "size", 0, 4096);
    card.bits = whole_number(content, "bits", card.bits, 16);
    const Json& categories = content.at("categories");
    if (!categories.is_array() || std::any_of(categories.begin(), categories.end(), [](const Json& name) { return !name.is_string(); })) {
        throw BadInput("the artifact's card is damaged (categories)");
    }
    if (std::find(categories.begin(), categories.end(), "*") != categories.end()) {
        throw BadInput("a category called '*', which stands for all categories together");
    }
    std::set<std::string> names;
    for (const Json& name : categories) names.insert(name.get<std::string>());
    const View common = parse_view(content, card.size);
    card.presentations = Presentations(common);
    if (content.contains("presentations")) card.presentations = parse_presentations(content.at("presentations"), names, card.size);
    if (!category && categories.size() == 1) category = *names.begin();
    card.thresholds = parse_calibration(content.at("calibration"), category.value_or("*"));
    card.category = std::move(category);
    return card;
} catch (const Json::exception& error) {
    throw BadInput(std::string("the artifact's card is damaged (") + error.what() + ")");
}

}  // namespace inspect_kd
