// Pictures that are stored on the card: grey PNG files in base 64.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include <opencv2/imgcodecs.hpp>

#include "read_image.hpp"

namespace inspect_kd {

/// Decode base 64 without line breaks; `what` begins the error.
inline std::string decode_base64(const std::string& text, const std::string& what) {
    constexpr std::string_view kLetters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const std::size_t end = std::min(text.find('='), text.size());
    if (text.size() % 4 != 0 || text.size() - end > 2 || text.find_first_not_of('=', end) != text.npos) {
        throw BadInput(what + " is not in base 64");
    }
    std::string bytes;
    std::uint32_t buffer = 0;
    for (std::size_t i = 0; i < end; ++i) {
        const std::size_t value = kLetters.find(text[i]);
        if (value == kLetters.npos) throw BadInput(what + " is not in base 64");
        buffer = buffer << 6 | static_cast<std::uint32_t>(value);
        if (i % 4 != 0) bytes.push_back(static_cast<char>(buffer >> (6 - 2 * (i % 4)) & 0xFF));
    }
    return bytes;
}

/// Decode a picture of an allowed size, which is checked before it is decompressed; `expected` describes that size.
inline cv::Mat decode_picture(const std::string& text, const std::string& what, std::size_t longest, const std::string& expected,
                              const std::function<bool(std::uint32_t, std::uint32_t)>& is_allowed) {
    if (text.size() > longest) {
        throw BadInput(what + " has " + std::to_string(text.size()) + " bytes; the limit is " + std::to_string(longest));
    }
    std::string content = decode_base64(text, what);
    content.resize(std::max<std::size_t>(content.size(), 26));
    const Bytes bytes(content);
    const bool is_png = content.rfind("\x89PNG\r\n\x1a\n", 0) == 0 && bytes.text(12, 4) == "IHDR" && bytes.big(24, 2) == 0x0800;
    const std::uint32_t width = bytes.big(16, 4), height = bytes.big(20, 4);
    if (!is_png || !is_allowed(width, height)) throw BadInput(what + " is no grey PNG of " + expected + " pixels");
    try {
        walk_png(bytes);
    } catch (const BadInput& error) {
        throw BadInput(what + " is damaged: " + error.what());
    }
    const cv::Mat raw(1, static_cast<int>(content.size()), CV_8U, content.data());
    cv::Mat picture = cv::imdecode(raw, cv::IMREAD_GRAYSCALE);
    if (picture.size() != cv::Size(static_cast<int>(width), static_cast<int>(height))) throw BadInput(what + " is damaged");
    return picture;
}

}  // namespace inspect_kd
