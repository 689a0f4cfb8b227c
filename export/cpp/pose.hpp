// Poses: where a part lies in an image, as an affine map into the reference frame, and what is done with it.
//
// As inspect_kd/datasets/alignment/pose.py, to the last digit: the operations and their order are the same (compile without fused
// multiply-add), and images are moved by cv::remap, because cv::warpAffine differs between versions of OpenCV.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <vector>

#include <opencv2/imgproc.hpp>

namespace inspect_kd {

/// (2, 3), row by row: maps (x, y, 1). The centre of the first pixel is (0, 0).
using Matrix = std::array<double, 6>;

struct Pose {
    Matrix matrix;       // from the image into the frame
    double quality = 0;  // agreement with the reference, at most 1
};

/// What alignment finds in one image. Beside a pose, a fault means that it is not good enough.
struct Located {
    std::optional<Pose> pose;
    std::optional<std::string> fault;
};

constexpr int kBorder = 2;  // pixels of the ring that is taken as an image's border
constexpr int kStripPixels = 1 << 16;

/// Python's round(): to the nearest, from the middle to the even number.
inline int rounded_to_int(double value) { return static_cast<int>(std::nearbyint(value)); }

inline Matrix shift(double x, double y) { return {1, 0, x, 0, 1, y}; }

inline Matrix turn(double angle) {
    const double cos = std::cos(angle), sin = std::sin(angle);
    return {cos, -sin, 0, sin, cos, 0};
}

/// From pixels of an image to those of the resized one.
inline Matrix resizing(cv::Size before, cv::Size after) {
    const double across = static_cast<double>(after.width) / before.width, down = static_cast<double>(after.height) / before.height;
    return {across, 0, (across - 1) / 2, 0, down, (down - 1) / 2};
}

/// Combine maps; the first one is applied first.
inline Matrix chain(std::initializer_list<Matrix> matrices) {
    Matrix all{1, 0, 0, 0, 1, 0};
    for (const Matrix& m : matrices) {
        all = {m[0] * all[0] + m[1] * all[3], m[0] * all[1] + m[1] * all[4], m[0] * all[2] + m[1] * all[5] + m[2],
               m[3] * all[0] + m[4] * all[3], m[3] * all[1] + m[4] * all[4], m[3] * all[2] + m[4] * all[5] + m[5]};
    }
    return all;
}

inline cv::Point2d map_point(const Matrix& m, double x, double y) { return {m[0] * x + m[1] * y + m[2], m[3] * x + m[4] * y + m[5]}; }

inline double area_scale(const Matrix& m) { return m[0] * m[4] - m[1] * m[3]; }

inline Matrix invert(const Matrix& m) {
    const double scale = area_scale(m), a = m[4] / scale, b = -m[1] / scale, c = -m[3] / scale, d = m[0] / scale;
    return {a, b, -(a * m[2] + b * m[5]), c, d, -(c * m[2] + d * m[5])};
}

/// Median of each channel along an image's border, its fraction dropped.
inline cv::Scalar border_median(const cv::Mat& image) {
    const int width = std::min({kBorder, image.rows, image.cols});
    std::array<std::array<std::int64_t, 256>, 3> counts{};
    const auto count = [&](cv::Range rows, cv::Range columns) {
        for (int y = rows.start; y < rows.end; ++y) {
            for (int x = columns.start; x < columns.end; ++x) {
                for (int c = 0; c < 3; ++c) ++counts[static_cast<std::size_t>(c)][image.at<cv::Vec3b>(y, x)[c]];
            }
        }
    };
    for (const int first : {0, image.rows - width}) count({first, first + width}, {0, image.cols});
    for (const int first : {0, image.cols - width}) count({0, image.rows}, {first, first + width});
    const std::int64_t total = std::int64_t{2} * width * (image.rows + image.cols);
    cv::Scalar medians;
    for (int c = 0; c < 3; ++c) {
        const auto value_at = [&](std::int64_t place) {
            int value = 0;
            for (std::int64_t seen = 0; (seen += counts[static_cast<std::size_t>(c)][static_cast<std::size_t>(value)]) <= place;) ++value;
            return value;
        };
        medians[c] = (value_at((total - 1) / 2) + value_at(total / 2)) / 2;
    }
    return medians;
}

/// Shrink an image so that its longest side is at most `side`.
inline cv::Mat shrink(const cv::Mat& image, int side) {
    const double factor = static_cast<double>(side) / std::max(image.cols, image.rows);
    if (factor >= 1) return image;
    cv::Mat small;
    const cv::Size size(std::max(1, rounded_to_int(image.cols * factor)), std::max(1, rounded_to_int(image.rows * factor)));
    cv::resize(image, small, size, 0, 0, cv::INTER_AREA);
    return small;
}

inline cv::Mat to_grey(const cv::Mat& image) {
    cv::Mat grey;
    cv::cvtColor(image, grey, cv::COLOR_RGB2GRAY);
    return grey;
}

/// Move a picture into a frame of another size, in steps of 1/32 pixel.
inline cv::Mat warp(const cv::Mat& picture, const Matrix& matrix, cv::Size size, int border = cv::BORDER_CONSTANT,
                    const cv::Scalar& fill = {}) {
    const Matrix back = invert(matrix);
    std::vector<float> x_of_column(static_cast<std::size_t>(size.width)), y_of_column(x_of_column.size());
    for (std::size_t x = 0; x < x_of_column.size(); ++x) {
        x_of_column[x] = static_cast<float>(back[0] * static_cast<double>(x));
        y_of_column[x] = static_cast<float>(back[3] * static_cast<double>(x));
    }
    cv::Mat moved(size, picture.type()), places, fractions;
    const int step = std::max(1, kStripPixels / size.width);
    for (int top = 0; top < size.height; top += step) {
        const int rows = std::min(step, size.height - top);
        cv::Mat x_map(rows, size.width, CV_32F), y_map(rows, size.width, CV_32F);
        for (int row = 0; row < rows; ++row) {
            const double y = top + row;
            const auto x_of_row = static_cast<float>(back[1] * y + back[2]), y_of_row = static_cast<float>(back[4] * y + back[5]);
            float *const xs = x_map.ptr<float>(row), *const ys = y_map.ptr<float>(row);
            for (std::size_t x = 0; x < x_of_column.size(); ++x) {
                xs[x] = x_of_column[x] + x_of_row;
                ys[x] = y_of_column[x] + y_of_row;
            }
        }
        cv::convertMaps(x_map, y_map, places, fractions, CV_16SC2);
        cv::Mat strip = moved.rowRange(top, top + rows);
        cv::remap(picture, strip, places, fractions, cv::INTER_LINEAR, border, fill);
    }
    return moved;
}

/// Move a part into the frame; what lies outside the image gets the border's median.
inline cv::Mat cut_frame(const cv::Mat& image, const Matrix& matrix, cv::Size frame) {
    return warp(image, matrix, frame, cv::BORDER_CONSTANT, border_median(image));
}

/// Cut a frame and shrink it to a square of `side` pixels, at most the frame's shorter side, in one step. Images of more detail are
/// averaged first.
inline cv::Mat cut_shrunk(const cv::Mat& image, const Matrix& matrix, cv::Size frame, int side) {
    const int step = std::min(frame.width, frame.height) / side;
    cv::Mat averaged = image;
    if (step > 1) {
        cv::resize(image, averaged, {std::max(1, image.cols / step), std::max(1, image.rows / step)}, 0, 0, cv::INTER_AREA);
    }
    const Matrix to_square = chain({resizing(averaged.size(), image.size()), matrix, resizing(frame, {side, side})});
    return warp(averaged, to_square, {side, side}, cv::BORDER_CONSTANT, border_median(image));
}

constexpr int kMinGrid = 16;  // least side of a heatmap over the whole image

/// Map the heatmap of a frame back to the whole image, at about the same resolution; 0 outside the frame.
inline cv::Mat heatmap_in_image(const cv::Mat& heatmap, const Matrix& matrix, cv::Size frame, cv::Size image) {
    const double pixels = static_cast<double>(frame.width) * frame.height;
    const double density = std::min(1.0, std::sqrt(static_cast<double>(heatmap.total()) / pixels));
    const cv::Size grid(std::max(kMinGrid, rounded_to_int(image.width * density)), std::max(kMinGrid, rounded_to_int(image.height * density)));
    return warp(heatmap, chain({resizing(heatmap.size(), frame), invert(matrix), resizing(image, grid)}), grid);
}

/// Pearson's correlation of grey levels, of all pixels or of those above 127 in `where`; 0 where one of both is constant.
inline double correlation(const cv::Mat& one, const cv::Mat& other, const cv::Mat& where = {}) {
    std::int64_t count = 0, sum_a = 0, sum_b = 0, a_a = 0, b_b = 0, a_b = 0;
    for (int row = 0; row < one.rows; ++row) {
        for (int column = 0; column < one.cols; ++column) {
            if (!where.empty() && where.at<std::uint8_t>(row, column) <= 127) continue;
            const std::int64_t a = one.at<std::uint8_t>(row, column), b = other.at<std::uint8_t>(row, column);
            ++count;
            sum_a += a, sum_b += b, a_a += a * a, b_b += b * b, a_b += a * b;
        }
    }
    const auto spread_a = static_cast<double>(count * a_a - sum_a * sum_a), spread_b = static_cast<double>(count * b_b - sum_b * sum_b);
    const double norm = std::sqrt(spread_a) * std::sqrt(spread_b);
    return norm > 0 ? static_cast<double>(count * a_b - sum_a * sum_b) / norm : 0.0;
}

}  // namespace inspect_kd
