// Split images into square frames, the whole image squashed or overlapping tiles, and join their heatmaps with blended seams: as
// inspect_kd/datasets/view.py.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <opencv2/core.hpp>
#include <opencv2/imgproc.hpp>

#include "pose.hpp"
#include "read_image.hpp"

namespace inspect_kd {

constexpr std::int64_t kLargestScaled = 400'000'000;  // pixels of an image at the tiles' scale

struct FramePrediction {
    double score = 0;
    cv::Mat heatmap;  // 32-bit floats
};

struct View {
    int size = 0;             // side of the model's input
    std::optional<int> tile;  // side of a tile in the image's own pixels; none squashes the whole image into one frame
    double overlap = 0.25;    // share of a tile's side

    bool operator==(const View& other) const { return size == other.size && tile == other.tile && overlap == other.overlap; }

    /// Refuse an image that would need too much memory at the tiles' scale.
    void check_size(cv::Size image) const {
        if (!tile) return;
        const cv::Size scaled = extent(image);
        const std::int64_t pixels = std::int64_t{std::max(scaled.width, size)} * std::max(scaled.height, size);
        if (pixels <= kLargestScaled) return;
        throw BadInput(std::to_string(image.width) + "x" + std::to_string(image.height) + " pixels become " +
                       std::to_string(pixels / 1'000'000) + " million at the tiles' scale; the limit is " +
                       std::to_string(kLargestScaled / 1'000'000) + " million: crop the image or use larger tiles");
    }

    /// Resize a picture to the frames' scale, padded to at least one frame.
    cv::Mat scaled(const cv::Mat& picture) const {
        check_size(picture.size());
        return padded(resize(picture, extent(picture.size())));
    }

    /// Resize and pad one value a pixel, like the picture.
    cv::Mat scaled_map(const cv::Mat& values) const {
        check_size(values.size());
        return padded(resize_map(values, extent(values.size())));
    }

    /// The frames' places in a picture at their scale, row by row.
    std::vector<cv::Rect> places(cv::Size scaled) const {
        std::vector<cv::Rect> places;
        for (const int top : starts(scaled.height)) {
            for (const int left : starts(scaled.width)) places.emplace_back(left, top, size, size);
        }
        return places;
    }

    /// Predict all frames of an image, numbered from 0; returns the highest score, and the heatmap at the frames' scale.
    FramePrediction predict(const cv::Mat& image, const std::function<FramePrediction(const cv::Mat&, std::size_t)>& predict_frame) const {
        const cv::Mat scaled = this->scaled(image);
        if (!tile) return predict_frame(scaled, 0);
        cv::Mat heat_sum = cv::Mat::zeros(scaled.size(), CV_32F), weight = cv::Mat::zeros(scaled.size(), CV_32F);
        const cv::Mat window = blend_window();
        std::optional<double> highest;
        std::size_t number = 0;
        for (const cv::Rect& place : places(scaled.size())) {
            const FramePrediction frame = predict_frame(scaled(place).clone(), number++);
            if (frame.heatmap.size() != place.size()) {
                throw BadInput("the artifact's heatmap is not of its input's size, as tiles require");
            }
            heat_sum(place) += window.mul(frame.heatmap);
            weight(place) += window;
            // NaN stays, whatever follows.
            if (!highest || (!(frame.score <= *highest) && !std::isnan(*highest))) highest = frame.score;
        }
        cv::Mat heat = heat_sum / weight;
        return {*highest, heat(cv::Rect({}, extent(image.size()))).clone()};
    }

private:
    cv::Mat padded(const cv::Mat& scaled) const {
        const int below = std::max(0, size - scaled.rows), right = std::max(0, size - scaled.cols);
        if (below + right == 0) return scaled;
        cv::Mat padded;
        // Pad by reflection, because a black border would look like a defect.
        cv::copyMakeBorder(scaled, padded, 0, below, 0, right, cv::BORDER_REFLECT);
        return padded;
    }

    /// The size of an image at the frames' scale.
    cv::Size extent(cv::Size image) const {
        if (!tile) return {size, size};
        const auto scaled = [&](int length) {
            return std::max(1, rounded_to_int(static_cast<double>(std::int64_t{length} * size) / *tile));
        };
        return {scaled(image.width), scaled(image.height)};
    }

    /// The tiles' upper or left edges, evenly spaced so that no tile crosses the border.
    std::vector<int> starts(int length) const {
        const int shared = static_cast<int>(overlap * size);
        const int count = std::max(1, static_cast<int>(std::ceil(static_cast<double>(length - shared) / (size - shared))));
        const double step = count > 1 ? static_cast<double>(length - size) / (count - 1) : 0;
        std::vector<int> places;
        for (int i = 0; i < count; ++i) places.push_back(i > 0 && i == count - 1 ? length - size : rounded_to_int(i * step));
        return places;
    }

    /// The weight of each pixel of a tile in the blend: 1 in the middle, near 0 at the border.
    cv::Mat blend_window() const {
        const int shared = std::max(1, static_cast<int>(overlap * size));
        std::vector<double> rise;
        for (int i = 0; i < size; ++i) {
            const double ramp = std::clamp((std::min(i, size - 1 - i) + 0.5) / shared, 0.0, 1.0), sine = std::sin(ramp * CV_PI / 2);
            rise.push_back(sine * sine);
        }
        cv::Mat window(size, size, CV_32F);
        for (int y = 0; y < size; ++y) {
            for (int x = 0; x < size; ++x) {
                window.at<float>(y, x) = static_cast<float>(rise[static_cast<std::size_t>(y)] * rise[static_cast<std::size_t>(x)]);
            }
        }
        return window;
    }
};

}  // namespace inspect_kd
