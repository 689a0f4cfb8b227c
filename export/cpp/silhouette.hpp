// Alignment of single parts on a plain background, by their silhouettes: as inspect_kd/datasets/alignment/silhouette.py and
// by_silhouette.py.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <opencv2/imgproc.hpp>

#include "pose.hpp"

namespace inspect_kd {

constexpr int kSilhouetteSide = 256;  // longest side of the shrunk image in which parts are looked for
constexpr double kMinContrast = 24;   // grey levels to the background
constexpr double kMinArea = 0.005, kMaxArea = 0.95, kSecondPart = 0.4;
constexpr double kPi = 3.14159265358979323846;

struct Silhouette {
    cv::Mat mask;  // 255 on the part
    double x = 0, y = 0, angle = 0, border_share = 0;
};

inline Silhouette measure_silhouette(const cv::Mat& mask) {
    // The raw moments are whole numbers; the others depend on the order of operations.
    const cv::Moments moments = cv::moments(mask, true);
    const double area = moments.m00, x = moments.m10 / area, y = moments.m01 / area;
    const double xx = moments.m20 / area - x * x, xy = moments.m11 / area - x * y, yy = moments.m02 / area - y * y;
    int touching = 0;
    for (const cv::Mat& side : {mask.row(0), mask.row(mask.rows - 1), mask.col(0), mask.col(mask.cols - 1)}) {
        touching += cv::countNonZero(side);
    }
    return {mask, x, y, 0.5 * std::atan2(2 * xy, xx - yy), touching / (2.0 * (mask.rows + mask.cols))};
}

/// Find the one part in an image of about 256 pixels; otherwise `fault` says why there is none.
inline std::optional<Silhouette> find_silhouette(const cv::Mat& image, std::string& fault) {
    cv::Mat difference, mask, labels, stats, centroids;
    cv::absdiff(image, border_median(image), difference);
    std::vector<cv::Mat> channels;
    cv::split(difference, channels);
    cv::max(channels[0], channels[1], difference);
    cv::max(difference, channels[2], difference);
    cv::GaussianBlur(difference, difference, {5, 5}, 0);
    double most = 0;
    cv::minMaxLoc(difference, nullptr, &most);
    fault = "no part on the background";
    if (most < kMinContrast) return std::nullopt;
    cv::threshold(difference, mask, 0, 255, cv::THRESH_OTSU);
    const cv::Mat kernel = cv::getStructuringElement(cv::MORPH_ELLIPSE, {5, 5});
    cv::morphologyEx(mask, mask, cv::MORPH_CLOSE, kernel);
    cv::morphologyEx(mask, mask, cv::MORPH_OPEN, kernel);
    const int count = cv::connectedComponentsWithStats(mask, labels, stats, centroids, 8);
    int largest = 0, area = 0, parts = 0;
    for (int label = 1; label < count; ++label) {
        if (stats.at<int>(label, cv::CC_STAT_AREA) > area) area = stats.at<int>(largest = label, cv::CC_STAT_AREA);
    }
    if (count < 2 || area < kMinArea * image.rows * image.cols) return std::nullopt;
    fault = "no background around the part";
    if (area > kMaxArea * image.rows * image.cols) return std::nullopt;
    for (int label = 1; label < count; ++label) parts += stats.at<int>(label, cv::CC_STAT_AREA) >= kSecondPart * area;
    fault = std::to_string(parts) + " parts in one picture";
    if (parts > 1) return std::nullopt;
    fault.clear();
    return measure_silhouette(labels == largest);
}

/// The reference frame, and small pictures of it with the average sound part.
struct SilhouetteReference {
    cv::Size frame;
    cv::Point2d anchor;          // of the part's centroid, in the frame
    std::optional<double> axis;  // direction of the principal axis in the frame; none: parts are never turned
    double max_border_share = 1;
    cv::Mat grey, mask;

    Located locate(const cv::Mat& image) const {
        const cv::Mat small = shrink(image, kSilhouetteSide);
        std::string fault;
        const std::optional<Silhouette> part = find_silhouette(small, fault);
        if (!part) return {std::nullopt, fault};
        Located located{pose_of(*part, to_grey(small), resizing(small.size(), image.size())), std::nullopt};
        if (part->border_share > max_border_share) located.fault = "the part is cut off by the picture's border";
        return located;
    }

private:
    /// Choose the direction of a silhouette that agrees best with the reference.
    Pose pose_of(const Silhouette& part, const cv::Mat& picture, const Matrix& to_image) const {
        const cv::Point2d centre = map_point(to_image, part.x, part.y);
        std::vector<double> turns{0.0};
        if (axis) turns = {*axis - part.angle, *axis - part.angle + kPi};
        std::optional<Pose> best;
        double best_agreement = 0;
        for (const double angle : turns) {
            const Matrix matrix = chain({shift(-centre.x, -centre.y), turn(angle), shift(anchor.x, anchor.y)});
            const Matrix to_picture = chain({to_image, matrix, resizing(frame, mask.size())});
            const double overlap = overlap_with(part.mask, to_picture);
            const double likeness =
                turns.size() > 1 ? correlation(warp(picture, to_picture, mask.size(), cv::BORDER_REPLICATE), grey, mask) : 0.0;
            if (best && !(overlap + likeness > best_agreement)) continue;
            best = Pose{matrix, overlap};
            best_agreement = overlap + likeness;
        }
        return *best;
    }

    /// Intersection over union with the reference's silhouette; pixels outside the frame belong to the union.
    double overlap_with(const cv::Mat& silhouette, const Matrix& to_picture) const {
        const cv::Mat moved = warp(silhouette, to_picture, mask.size());
        const double whole = cv::sum(silhouette)[0] * std::abs(area_scale(to_picture)), common = cv::sum(cv::min(moved, mask))[0];
        const double all = std::max(whole, cv::sum(moved)[0]) + cv::sum(mask)[0] - common;
        return all > 0 ? common / all : 0.0;
    }
};

}  // namespace inspect_kd
