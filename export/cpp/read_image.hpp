// Read an image file as inspect-kd does: 8-bit RGB, upright, transparent pixels black; and resize it.
//
// Unusual here: the file's structure is checked before OpenCV decodes it, because OpenCV silently returns a truncated JPEG as a
// half-grey image. Files that OpenCV would decode differently from the Python program are refused, with the reason.
#pragma once

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

#include <opencv2/imgcodecs.hpp>
#include <opencv2/imgproc.hpp>

namespace inspect_kd {

/// A file is broken, hostile or of another kind than its use requires.
struct BadInput : std::runtime_error {
    using std::runtime_error::runtime_error;
};

constexpr std::uintmax_t kLargestFile = std::uintmax_t{1} << 31;
constexpr std::int64_t kLargestPixels = 200'000'000;
/// Scans of a progressive JPEG, which usually has ten: each may be a few bytes long, but takes a pass over every pixel.
constexpr int kMostScans = 64;
constexpr std::uint32_t kMostPictures = 16;

inline std::string read_file(const std::string& path) {
    namespace fs = std::filesystem;
    std::error_code fault;
    if (!fs::exists(path, fault)) throw BadInput("no such file");
    if (!fs::is_regular_file(path, fault)) throw BadInput("a folder or a device, not a file");
    const std::uintmax_t size = fs::file_size(path, fault);
    if (fault || size > kLargestFile) throw BadInput("too large, or of unknown size");
    std::ifstream file(path, std::ios::binary);
    if (!file) throw BadInput("cannot be read");
    if (size == 0) throw BadInput("an empty file");
    // Not to the end: files of the system may be endless, and have the size 0.
    std::string content(static_cast<std::size_t>(size), '\0');
    if (!file.read(content.data(), static_cast<std::streamsize>(size))) throw BadInput("cannot be read");
    return content;
}

/// Reads numbers from a file's bytes; throws beyond their end, where the file is truncated.
class Bytes {
public:
    explicit Bytes(std::string_view content) : content_(content) {}
    std::uint32_t big(std::size_t at, int count) const { return number(at, count, true); }
    std::uint32_t little(std::size_t at, int count) const { return number(at, count, false); }
    std::string_view text(std::size_t at, std::size_t count) const {
        if (at > content_.size() || count > content_.size() - at) throw BadInput("broken or truncated");
        return content_.substr(at, count);
    }
    std::size_t size() const { return content_.size(); }

private:
    std::uint32_t number(std::size_t at, int count, bool big_end_first) const {
        const std::string_view bytes = text(at, static_cast<std::size_t>(count));
        std::uint32_t value = 0;
        for (int i = 0; i < count; ++i) {
            value = value << 8 | static_cast<std::uint8_t>(bytes[static_cast<std::size_t>(big_end_first ? i : count - 1 - i)]);
        }
        return value;
    }
    std::string_view content_;
};

inline void check_pixels(std::int64_t width, std::int64_t height) {
    if (width < 1 || height < 1 || width > kLargestPixels / height) {
        throw BadInput(std::to_string(width) + "x" + std::to_string(height) + " pixels; at most 200 million are read");
    }
}

/// Exif orientation, 1 (upright) to 8. Broken Exif, which OpenCV and Pillow read differently, is refused.
inline int orientation_of(const Bytes& exif) {
    const std::string_view order = exif.text(6, 2);
    const auto number = [&](std::size_t at, int count) { return order == "MM" ? exif.big(at, count) : exif.little(at, count); };
    if ((order != "MM" && order != "II") || number(8, 2) != 42) throw BadInput("broken Exif");
    int orientation = 0;
    const std::size_t directory = 6 + std::size_t{number(10, 4)};
    for (std::size_t i = 0, at = directory + 2; i < number(directory, 2); ++i, at += 12) {
        if (number(at, 2) != 0x0112) continue;
        if (orientation != 0 || number(at + 2, 2) != 3 || number(at + 4, 4) != 1) throw BadInput("broken Exif");
        const std::uint32_t value = number(at + 8, 2);
        orientation = value >= 1 && value <= 8 ? static_cast<int>(value) : 1;
    }
    return std::max(orientation, 1);
}

/// Whether a JPEG segment holds the image's size.
inline bool is_frame_header(std::uint32_t marker) {
    return marker >= 0xC0 && marker <= 0xCF && marker != 0xC4 && marker != 0xC8 && marker != 0xCC;
}

/// Number of pixels of the JPEG that starts here; 0 if none does: programs that edit a file may drop all but the first image.
inline std::int64_t pixels_at(const Bytes& bytes, std::size_t at) try {
    if (bytes.big(at, 2) != 0xFFD8) return 0;
    for (at += 2; bytes.big(at, 1) == 0xFF; at += 2 + bytes.big(at + 2, 2)) {
        const std::uint32_t marker = bytes.big(at + 1, 1);
        if (is_frame_header(marker)) return std::int64_t{bytes.big(at + 5, 2)} * bytes.big(at + 7, 2);
    }
    return 0;
} catch (const BadInput&) {
    return 0;
}

/// Whether the multi-picture index (CIPA DC-007) lists a second image of the same kind: one with as many pixels, or one marked as
/// a view of several. Previews, gain maps and depth maps have fewer pixels.
inline bool lists_another_picture(const Bytes& bytes, std::size_t index, std::int64_t own) try {
    const bool big = bytes.text(index, 2) == "MM";
    const auto number = [&](std::size_t at, int count) { return big ? bytes.big(index + at, count) : bytes.little(index + at, count); };
    const std::size_t directory = number(4, 4);
    for (std::size_t i = 0, tag = directory + 2; i < number(directory, 2); ++i, tag += 12) {
        if (number(tag, 2) != 0xB002) continue;
        const std::uint32_t count = number(tag + 4, 4) / 16;
        if (count > kMostPictures) return true;
        for (std::size_t entry = number(tag + 8, 4) + std::size_t{16}, last = entry + 16 * std::size_t{count} - 16; entry < last; entry += 16) {
            if ((number(entry, 4) >> 16 & 0xFF) == 2 || pixels_at(bytes, index + number(entry + 8, 4)) >= own) return true;
        }
    }
    return false;
} catch (const BadInput&) {
    return false;  // not a valid index
}

/// Check a JPEG segment by segment up to its own end-of-image marker, not a thumbnail's; returns the orientation.
inline int walk_jpeg(const Bytes& bytes) {
    int orientation = 0, scans = 0;
    std::int64_t pixels = 1;
    std::size_t index = 0;
    for (std::size_t at = 2;;) {
        if (bytes.big(at, 1) != 0xFF) throw BadInput("broken or truncated");
        const std::uint32_t marker = bytes.big(at + 1, 1);
        if (marker == 0xD9) {
            if (index != 0 && lists_another_picture(bytes, index, pixels)) {
                throw BadInput("a JPEG of several pictures, only one of which would be inspected; save each one alone");
            }
            return std::max(orientation, 1);
        }
        if (marker == 0xFF) { ++at; continue; }
        const std::size_t length = bytes.big(at + 2, 2);
        const std::string_view body = bytes.text(at + 2, length);
        if (marker == 0xDA && ++scans > kMostScans) throw BadInput("a JPEG of more than 64 scans; refused before decoding");
        if (marker == 0xE2 && body.substr(2, 4) == std::string_view("MPF\0", 4)) index = at + 8;
        if (is_frame_header(marker)) {
            pixels = std::int64_t{bytes.big(at + 5, 2)} * bytes.big(at + 7, 2);
            check_pixels(bytes.big(at + 7, 2), bytes.big(at + 5, 2));
            if (bytes.big(at + 9, 1) == 4) throw BadInput("a CMYK JPEG, which this program does not read; save it as RGB");
        }
        if (marker == 0xE1 && body.substr(2, 6) == std::string_view("Exif\0", 6)) {
            if (orientation != 0) throw BadInput("broken Exif");
            orientation = orientation_of(Bytes(body.substr(2)));
        }
        const std::size_t xmp = body.find("tiff:Orientation");
        if (marker == 0xE1 && xmp != body.npos && body.substr(xmp + 16, 3) != "=\"1" && body.substr(xmp + 16, 2) != ">1") {
            throw BadInput("rotated by XMP, which this program does not read; save it upright");
        }
        at += 2 + length;
        if (marker != 0xDA) continue;
        // Compressed pixels follow, up to the next marker that is neither a stuffed byte nor a restart.
        for (std::uint32_t next = 0;; ++at) {
            next = bytes.big(at, 1) == 0xFF ? bytes.big(at + 1, 1) : 0;
            if (next != 0 && next != 0xFF && (next < 0xD0 || next > 0xD7)) break;
        }
    }
}

/// Check a PNG chunk by chunk; returns whether it has alpha.
inline bool walk_png(const Bytes& bytes) {
    const std::uint32_t colour = bytes.big(25, 1);
    check_pixels(bytes.big(16, 4), bytes.big(20, 4));
    bool has_alpha = colour == 4 || colour == 6, has_palette = false;
    if (bytes.text(12, 4) != "IHDR") throw BadInput("broken or truncated");
    for (std::size_t at = 8;;) {
        const std::size_t length = bytes.big(at, 4);
        const std::string_view kind = bytes.text(at + 4, 4), body = bytes.text(at + 8, length);
        bytes.big(at + 8 + length, 4);  // the checksum, which libpng verifies
        if (kind == "IEND") {
            if (bytes.size() != at + 12 + length) throw BadInput("bytes after the end of the PNG, which may be another image");
            return has_alpha;
        }
        if (kind == "IHDR" && at != 8) throw BadInput("broken or truncated");
        if (kind == "PLTE" && std::exchange(has_palette, true)) throw BadInput("a PNG with two palettes; save it again");
        if (kind == "tRNS" && (colour == 0 || colour == 2)) throw BadInput("a PNG with a transparent colour, which this program does not read");
        has_alpha |= kind == "tRNS" && colour == 3;
        if (kind == "acTL" || kind == "fcTL" || kind == "fdAT") throw BadInput("an animation of several images, only one of which would be inspected; save each one alone");
        const bool is_text = kind == "tEXt" || kind == "zTXt" || kind == "iTXt";
        if (kind == "eXIf" || (is_text && (body.rfind("Raw profile type", 0) == 0 || body.rfind("XML:com.adobe", 0) == 0))) {
            throw BadInput("a PNG with Exif or XMP, which may say that it is rotated; save it upright and without");
        }
        at += 12 + length;
    }
}

inline void walk_bmp(const Bytes& bytes) {
    const std::int64_t width = static_cast<std::int32_t>(bytes.little(18, 4));
    const std::int64_t height = std::abs(static_cast<std::int64_t>(static_cast<std::int32_t>(bytes.little(22, 4))));
    const std::uint32_t header = bytes.little(14, 4), depth = bytes.little(28, 2);
    check_pixels(width, height);
    if ((header != 40 && header != 108 && header != 124) || (depth != 8 && depth != 24) || bytes.little(30, 4) != 0) {
        throw BadInput("a BMP of this kind is not read; 8 or 24 bits a pixel without compression are");
    }
    bytes.text(bytes.little(10, 4), static_cast<std::size_t>((width * depth + 31) / 32 * 4 * height));
}

/// Apply the Exif orientation.
inline cv::Mat upright(cv::Mat image, int orientation) {
    if (orientation >= 5) cv::transpose(image, image);
    if (const int turn = (orientation - 1) % 4; turn != 0) cv::flip(image, image, turn == 1 ? 1 : turn == 2 ? -1 : 0);
    return image;
}

/// Read a file as (H, W, 3) RGB bytes; `bits` is the number of significant bits of a 16-bit file.
inline cv::Mat read_image(const std::string& path, int bits) {
    const std::string content = read_file(path);
    const Bytes bytes(content);
    bool has_alpha = false;
    int orientation = 1;
    if (content.rfind("\xFF\xD8\xFF", 0) == 0) orientation = walk_jpeg(bytes);
    else if (content.rfind("\x89PNG\r\n\x1a\n", 0) == 0) has_alpha = walk_png(bytes);
    else if (content.rfind("BM", 0) == 0) walk_bmp(bytes);
    else throw BadInput("not an image that this program reads (PNG, JPEG and BMP are)");

    const cv::Mat raw(1, static_cast<int>(content.size()), CV_8U, const_cast<char*>(content.data()));
    const int opaque = cv::IMREAD_COLOR | cv::IMREAD_ANYDEPTH | cv::IMREAD_IGNORE_ORIENTATION;
    cv::Mat image = cv::imdecode(raw, has_alpha ? cv::IMREAD_UNCHANGED : opaque);
    if (image.empty() || image.channels() != (has_alpha ? 4 : 3)) throw BadInput("broken or truncated");
    if (image.depth() == CV_16U && bits < 16) {
        cv::Mat beyond;
        // Alpha has 16 bits whatever the camera has.
        cv::inRange(image, cv::Scalar(0, 0, 0, 0), cv::Scalar((1 << bits) - 1, (1 << bits) - 1, (1 << bits) - 1, 65535), beyond);
        if (cv::countNonZero(beyond) != image.rows * image.cols) {
            throw BadInput("pixels of more than " + std::to_string(bits) + " significant bits");
        }
    }
    if (image.depth() == CV_16U) image.convertTo(image, CV_8U, 255.0F / static_cast<float>((1 << bits) - 1));
    if (image.depth() != CV_8U) throw BadInput("pixels of a depth that this program does not read");
    if (has_alpha) {
        // Transparent pixels become black, whatever their colour in the file.
        image.forEach<cv::Vec4b>([](cv::Vec4b& pixel, const int*) {
            for (int c = 0; c < 3; ++c) pixel[c] = static_cast<std::uint8_t>((pixel[c] * pixel[3] + 127) / 255);
        });
    }
    cv::cvtColor(image, image, has_alpha ? cv::COLOR_BGRA2RGB : cv::COLOR_BGR2RGB);
    return upright(image, orientation);
}

/// Identifier of the resize: squash to a square; area averaging where an axis shrinks, linear where it grows.
constexpr std::string_view kResize = "opencv-area-linear-squash/1";

inline cv::Mat resize(const cv::Mat& image, cv::Size target) {
    cv::Mat result = image;
    const cv::Size shrunk_to(std::min(image.cols, target.width), std::min(image.rows, target.height));
    if (shrunk_to != result.size()) cv::resize(result, result, shrunk_to, 0, 0, cv::INTER_AREA);
    if (target != result.size()) cv::resize(result, result, target, 0, 0, cv::INTER_LINEAR);
    return result;
}

/// Interpolate linearly between the centres of rows, in double precision; beyond the outer ones their value continues.
inline cv::Mat enlarge_rows(const cv::Mat& values, int count) {
    if (values.rows == count) return values;
    cv::Mat enlarged(count, values.cols, CV_64F);
    for (int row = 0; row < count; ++row) {
        const double place = std::clamp((row + 0.5) * values.rows / count - 0.5, 0.0, static_cast<double>(values.rows - 1));
        const int before = static_cast<int>(place), after = std::min(before + 1, values.rows - 1);
        const double share = place - before;
        for (int x = 0; x < values.cols; ++x) {
            enlarged.at<double>(row, x) = values.at<double>(before, x) * (1 - share) + values.at<double>(after, x) * share;
        }
    }
    return enlarged;
}

/// Resize one value a pixel like an image, without OpenCV's linear resize of floats, which differs between its versions.
inline cv::Mat resize_map(const cv::Mat& values, cv::Size target) {
    cv::Mat result = resize(values, {std::min(values.cols, target.width), std::min(values.rows, target.height)});
    if (result.size() == target) return result;
    result.convertTo(result, CV_64F);
    result = enlarge_rows(enlarge_rows(result, target.height).t(), target.width).t();
    result.convertTo(result, CV_32F);
    return result;
}

}  // namespace inspect_kd
