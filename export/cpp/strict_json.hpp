// JSON of the artifact's card: strict, because the file may be hostile.
#pragma once

#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "read_image.hpp"

namespace inspect_kd {

using Json = nlohmann::ordered_json;

constexpr std::size_t kLargestCard = 8 << 20;
constexpr int kDeepestCard = 64;  // nested brackets: more is an attack on the parser's memory

/// Refuse duplicate keys, for which JSON readers differ in which value they use.
inline Json parse_json(const std::string& text) {
    if (text.rfind("\xEF\xBB\xBF", 0) == 0) throw BadInput("the artifact's card is damaged (it begins with a byte order mark)");
    if (text.size() > kLargestCard) throw BadInput("the artifact's card is " + std::to_string(text.size()) + " bytes long");
    std::vector<std::set<std::string>> keys;  // of each open object
    return Json::parse(text, [&keys](int depth, Json::parse_event_t event, Json& parsed) {
        if (depth > kDeepestCard) throw BadInput("the artifact's card is damaged (nested too deeply)");
        if (event == Json::parse_event_t::object_start) keys.emplace_back();
        if (event == Json::parse_event_t::object_end) keys.pop_back();
        if (event == Json::parse_event_t::key && !keys.back().insert(parsed.get<std::string>()).second) {
            throw BadInput("the artifact's card is damaged (a key stands twice)");
        }
        return true;
    });
}

/// Refuse unknown fields: those of a later program may change the meaning of others.
inline void refuse_other_fields(const Json& content, const char* what, std::initializer_list<std::string_view> known) {
    if (!content.is_object()) throw BadInput(std::string("the artifact's card is damaged (") + what + ')');
    for (const auto& item : content.items()) {
        if (std::find(known.begin(), known.end(), item.key()) == known.end()) {
            throw BadInput(std::string("the artifact's card is damaged (unknown field in ") + what + ')');
        }
    }
}

/// A finite number; booleans and text are refused.
inline double real_number(const Json& content, const char* key) {
    const Json& value = content.at(key);
    if (!value.is_number() || !(std::abs(value.get<double>()) < 1e300)) throw BadInput(std::string("impossible ") + key + ' ' + value.dump());
    return value.get<double>();
}

inline int whole_number(const Json& content, const char* key, int otherwise, int largest) {
    const Json value = content.value(key, Json());
    if (value.is_null() && otherwise > 0) return otherwise;
    if (!value.is_number_integer() || value < 1 || value > largest) throw BadInput(std::string("impossible ") + key + ' ' + value.dump());
    return value.get<int>();
}

/// A number between two limits.
inline double number_within(const Json& content, const char* key, double low, double high) {
    const double value = real_number(content, key);
    if (!(low <= value && value <= high)) throw BadInput(std::string("impossible ") + key + ' ' + content.at(key).dump());
    return value;
}

}  // namespace inspect_kd
