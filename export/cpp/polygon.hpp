// Polygons on a grid of pixels: which pixels lie inside, and whether an outline is usable. As inspect_kd/datasets/polygons.py, which says
// why cv::fillPoly is not used.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

#include <opencv2/core.hpp>

namespace inspect_kd {

using Polygon = std::vector<cv::Point2d>;

/// Give a value to the pixels of a row from `left` to `right`, both included.
inline void fill_span(cv::Mat& map, int row, double left, double right, float value) {
    const int first = static_cast<int>(std::ceil(left)), last = std::min(static_cast<int>(std::floor(right)), map.cols - 1);
    for (int x = first; x <= last; ++x) map.at<float>(row, x) = value;
}

/// Give a value to the pixels whose centre lies inside a polygon or on its outline; its corners are rounded to pixels.
inline void fill_polygon(cv::Mat& map, Polygon corners, float value) {
    for (cv::Point2d& corner : corners) corner = {std::nearbyint(corner.x), std::nearbyint(corner.y)};
    for (int row = 0; row < map.rows; ++row) {
        // Where a row meets corners, it borders on what lies above it and on what lies below it.
        std::vector<double> above, below;
        for (std::size_t i = 0; i < corners.size(); ++i) {
            const cv::Point2d start = corners[i], end = corners[(i + 1) % corners.size()], along = end - start;
            const double low = std::min(start.y, end.y), high = std::max(start.y, end.y);
            if (low == high) {
                if (row == low) fill_span(map, row, std::min(start.x, end.x), std::max(start.x, end.x), value);
                continue;
            }
            const double crossing = (start.x * along.y + (row - start.y) * along.x) / along.y;
            if (low < row && row <= high) above.push_back(crossing);
            if (low <= row && row < high) below.push_back(crossing);
        }
        for (std::vector<double>* crossings : {&above, &below}) {
            std::sort(crossings->begin(), crossings->end());
            for (std::size_t i = 0; i + 1 < crossings->size(); i += 2) fill_span(map, row, (*crossings)[i], (*crossings)[i + 1], value);
        }
    }
}

/// Whether two edges cross: the ends of each lie on both sides of the other.
inline bool crosses_itself(const Polygon& corners) {
    const std::size_t count = corners.size();
    const auto side = [&](std::size_t edge, const cv::Point2d& end) {
        const cv::Point2d along = corners[(edge + 1) % count] - corners[edge], offset = end - corners[edge];
        const double value = along.x * offset.y - along.y * offset.x;
        return (value > 0) - (value < 0);
    };
    const auto straddles = [&](std::size_t edge, std::size_t other) {
        return side(edge, corners[other]) * side(edge, corners[(other + 1) % count]) < 0;
    };
    for (std::size_t edge = 0; edge < count; ++edge) {
        for (std::size_t other = edge + 1; other < count; ++other) {
            if (straddles(edge, other) && straddles(other, edge)) return true;
        }
    }
    return false;
}

inline double polygon_area(const Polygon& corners) {
    double one = 0, other = 0;
    for (std::size_t i = 0; i < corners.size(); ++i) {
        const cv::Point2d& next = corners[(i + 1) % corners.size()];
        one += corners[i].x * next.y, other += corners[i].y * next.x;
    }
    return std::abs(one - other) / 2;
}

}  // namespace inspect_kd
