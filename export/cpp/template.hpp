// Alignment of boards, prints and parts in clutter: match corners with a reference picture, then refine the match on all pixels. As
// inspect_kd/datasets/alignment/by_template.py and refine.py.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include <opencv2/calib3d.hpp>
#include <opencv2/features2d.hpp>
#include <opencv2/imgproc.hpp>

#include "pose.hpp"

namespace inspect_kd {

constexpr int kTemplateSide = 320, kRefineSide = 160;  // longest sides of the pictures that are matched, and refined on
constexpr int kCorners = 500, kEdge = 15, kMinMatches = 12, kIterations = 20;
constexpr double kMaxError = 3.0, kMaxScale = 1.25, kPrecision = 0.02;
constexpr int kSteps = 64;  // per pixel, in which the places of corners are counted

using System = std::array<std::array<double, 6>, 5>;  // of five equations, with the right side

/// Solve a positive definite system by elimination; none if it is singular.
inline std::optional<std::array<double, 5>> solve(System rows) {
    std::array<double, 5> diagonal{}, solution{};
    for (std::size_t i = 0; i < 5; ++i) diagonal[i] = rows[i][i];
    for (std::size_t pivot = 0; pivot < 5; ++pivot) {
        if (!(rows[pivot][pivot] > 1e-9 * diagonal[pivot])) return std::nullopt;
        for (std::size_t below = pivot + 1; below < 5; ++below) {
            const double share = rows[below][pivot] / rows[pivot][pivot];
            for (std::size_t column = pivot; column < 6; ++column) rows[below][column] -= share * rows[pivot][column];
        }
    }
    for (std::size_t row = 5; row-- > 0;) {
        double value = rows[row][5];
        for (std::size_t column = row + 1; column < 5; ++column) value -= rows[row][column] * solution[column];
        solution[row] = value / rows[row][row];
    }
    return solution;
}

/// A reference picture with its slopes; steps are regressions of the moved picture on them, in whole numbers.
class Refinement {
public:
    explicit Refinement(const cv::Mat& reference) {
        cv::GaussianBlur(reference, blurred_, {5, 5}, 0);
        const int width = blurred_.cols, height = blurred_.rows;
        for (int y = 0; y < height; ++y) {
            for (int x = 0; x < width; ++x) {
                const auto value = [&](int row, int column) { return std::int64_t{blurred_.at<std::uint8_t>(row, column)}; };
                const std::int64_t by_x = x > 0 && x < width - 1 ? value(y, x + 1) - value(y, x - 1) : 0;
                const std::int64_t by_y = y > 0 && y < height - 1 ? value(y + 1, x) - value(y - 1, x) : 0;
                regressors_.push_back({1, value(y, x), by_x, by_y, (2 * x - (width - 1)) * by_y - (2 * y - (height - 1)) * by_x});
            }
        }
        for (std::size_t i = 0; i < 5; ++i) {
            for (std::size_t k = 0; k < 5; ++k) {
                std::int64_t sum = 0;
                for (const auto& pixel : regressors_) sum += pixel[i] * pixel[k];
                products_[i][k] = static_cast<double>(sum);
            }
        }
    }

    cv::Size size() const { return blurred_.size(); }

    /// Improve the map from a picture to the reference; the quality is the correlation of all pixels.
    std::optional<Pose> refine(const cv::Mat& picture, Matrix matrix) const {
        const double centre_x = (blurred_.cols - 1) / 2.0, centre_y = (blurred_.rows - 1) / 2.0;
        for (int i = 0; i < kIterations; ++i) {
            const auto step = step_from(moved(picture, matrix));
            if (!step) return std::nullopt;
            const auto [x, y, angle] = *step;
            matrix = chain({matrix, shift(-centre_x, -centre_y), turn(angle), shift(centre_x + x, centre_y + y)});
            if (std::max({std::abs(x), std::abs(y), std::abs(angle) * std::max(blurred_.cols, blurred_.rows) / 2}) < kPrecision) break;
        }
        return Pose{matrix, std::max(0.0, correlation(moved(picture, matrix), blurred_))};
    }

private:
    cv::Mat moved(const cv::Mat& picture, const Matrix& matrix) const {
        cv::Mat result;
        cv::GaussianBlur(warp(picture, matrix, blurred_.size(), cv::BORDER_REPLICATE), result, {5, 5}, 0);
        return result;
    }

    /// The shift and the turn about the centre that are still missing; none if the pictures have nothing in common.
    std::optional<std::array<double, 3>> step_from(const cv::Mat& moved) const {
        std::array<std::int64_t, 5> sums{};
        std::size_t at = 0;
        for (int y = 0; y < moved.rows; ++y) {
            for (int x = 0; x < moved.cols; ++x, ++at) {
                for (std::size_t i = 0; i < 5; ++i) sums[i] += regressors_[at][i] * moved.at<std::uint8_t>(y, x);
            }
        }
        System system = products_;
        for (std::size_t i = 0; i < 5; ++i) system[i][5] = static_cast<double>(sums[i]);
        const auto weights = solve(system);
        if (!weights || !((*weights)[1] > 0)) return std::nullopt;
        const auto& w = *weights;
        const double x = 2 * w[2] / w[1], y = 2 * w[3] / w[1], angle = 4 * w[4] / w[1];
        const bool is_small = std::max(std::abs(x), std::abs(y)) < std::max(moved.cols, moved.rows) / 4.0 && std::abs(angle) < CV_PI / 8;
        return is_small ? std::optional<std::array<double, 3>>({x, y, angle}) : std::nullopt;
    }

    cv::Mat blurred_;
    std::vector<std::array<std::int64_t, 5>> regressors_;  // of each pixel: constant, reference, slopes by x, by y, by turning
    System products_{};
};

/// Fit the shift, turn and scale that move points to others by least squares; none if they are all at one place.
inline std::optional<Matrix> fit_similarity(const std::vector<cv::Point2f>& here, const std::vector<cv::Point2f>& there) {
    std::int64_t x = 0, y = 0, u = 0, v = 0, here_here = 0;
    const auto steps = [](float place) { return static_cast<std::int64_t>(std::nearbyint(place * kSteps)); };
    const auto count = static_cast<std::int64_t>(here.size());
    std::int64_t x_u = 0, y_v = 0, x_v = 0, y_u = 0;
    for (std::size_t i = 0; i < here.size(); ++i) {
        const std::int64_t px = steps(here[i].x), py = steps(here[i].y), pu = steps(there[i].x), pv = steps(there[i].y);
        x += px, y += py, u += pu, v += pv;
        here_here += px * px + py * py, x_u += px * pu, y_v += py * pv, x_v += px * pv, y_u += py * pu;
    }
    const std::int64_t spread = count * here_here - x * x - y * y;
    const std::int64_t along = (count * x_u - x * u) + (count * y_v - y * v);
    const std::int64_t across = (count * x_v - x * v) - (count * y_u - y * u);
    if (spread <= 0) return std::nullopt;
    const double a = static_cast<double>(along) / static_cast<double>(spread);
    const double b = static_cast<double>(across) / static_cast<double>(spread);
    const double scale = static_cast<double>(kSteps * count), sum_x = static_cast<double>(x), sum_y = static_cast<double>(y);
    return Matrix{a, -b, (static_cast<double>(u) - (a * sum_x - b * sum_y)) / scale,
                  b, a, (static_cast<double>(v) - (b * sum_x + a * sum_y)) / scale};
}

/// The picture of one sound part, which is the reference frame.
class TemplateReference {
public:
    TemplateReference(cv::Size frame, cv::Mat grey)
        : frame(frame), grey_(std::move(grey)), corners_(find_corners(grey_)), refinement_(shrink(grey_, kRefineSide)) {}

    cv::Size frame;

    Located locate(const cv::Mat& image) const {
        const cv::Mat grey = shrink(to_grey(image), kTemplateSide);
        const std::optional<Matrix> matched = match(grey);
        const Matrix to_coarse = resizing(grey_.size(), refinement_.size());
        const std::optional<Pose> refined = matched ? refinement_.refine(grey, chain({*matched, to_coarse})) : std::nullopt;
        if (!refined) return {std::nullopt, "no match with the reference picture"};
        const Matrix in_picture = chain({refined->matrix, invert(to_coarse)});
        const Matrix to_picture = resizing(image.size(), grey.size()), to_frame = resizing(grey_.size(), frame);
        return {Pose{chain({to_picture, in_picture, to_frame}), refined->quality}, std::nullopt};
    }

private:
    struct Corners {
        std::vector<cv::KeyPoint> points;
        cv::Mat descriptors;
    };

    static Corners find_corners(const cv::Mat& grey) {
        Corners corners;
        // ORB fails if its own shrinking leaves nothing of a picture.
        if (std::min(grey.rows, grey.cols) <= 2 * kEdge) return corners;
        cv::ORB::create(kCorners, 1.2F, 8, kEdge, 0, 2, cv::ORB::HARRIS_SCORE, 31, 8)
            ->detectAndCompute(grey, cv::noArray(), corners.points, corners.descriptors);
        return corners;
    }

    /// Estimate the similarity from a picture to the reference by matched corners.
    std::optional<Matrix> match(const cv::Mat& grey) const {
        const Corners found = find_corners(grey);
        if (found.descriptors.empty() || corners_.descriptors.empty()) return std::nullopt;
        std::vector<cv::DMatch> matches;
        cv::BFMatcher(cv::NORM_HAMMING, true).match(found.descriptors, corners_.descriptors, matches);
        if (matches.size() < kMinMatches) return std::nullopt;
        std::vector<cv::Point2f> here, there, agreed_here, agreed_there;
        for (const cv::DMatch& match : matches) {
            here.push_back(found.points[static_cast<std::size_t>(match.queryIdx)].pt);
            there.push_back(corners_.points[static_cast<std::size_t>(match.trainIdx)].pt);
        }
        std::vector<std::uint8_t> agrees;
        cv::estimateAffinePartial2D(here, there, agrees, cv::RANSAC, kMaxError, 2000, 0.995);
        for (std::size_t i = 0; i < agrees.size(); ++i) {
            if (agrees[i] == 0) continue;
            agreed_here.push_back(here[i]);
            agreed_there.push_back(there[i]);
        }
        if (agreed_here.size() < kMinMatches) return std::nullopt;
        const std::optional<Matrix> matrix = fit_similarity(agreed_here, agreed_there);
        if (!matrix) return std::nullopt;
        const double scale = std::sqrt(area_scale(*matrix));
        return 1 / kMaxScale < scale && scale < kMaxScale ? matrix : std::nullopt;
    }

    cv::Mat grey_;
    Corners corners_;
    Refinement refinement_;
};

}  // namespace inspect_kd
