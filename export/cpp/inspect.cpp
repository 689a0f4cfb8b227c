// Inspect images with an inspect-kd artifact: ONNX Runtime's C++ API, OpenCV, and the card inside the file. Nothing else.
//
//     inspect_kd_cpp ARTIFACT [--category NAME] [--threads N] [--heatmaps FOLDER] IMAGE...
//
// Prints one JSON line per image, with the fields of `inspect-kd predict`. An image that cannot be read or scored is NG, with its
// error, and the exit code is 3: a part is never accepted because something failed.
#define ORT_API_MANUAL_INIT

#include <chrono>
#include <cmath>
#include <cstdint>
#include <fstream>
#include <iostream>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>
#include <onnxruntime_cxx_api.h>

#include "card.hpp"
#include "onnx_file.hpp"
#include "read_image.hpp"

namespace {

using inspect_kd::BadInput;
using inspect_kd::Card;
using inspect_kd::EnvironmentFault;
using inspect_kd::Json;
using inspect_kd::parse_card;
using inspect_kd::Thresholds;

/// Exit codes of the Python program: 2 wrong arguments, 3 a bad file, 4 a missing dependency.
enum Exit { kFine = 0, kUsage = 2, kBadInput = 3, kEnvironment = 4 };

struct UsageError : std::runtime_error {
    using std::runtime_error::runtime_error;
};

struct Prediction {
    inspect_kd::ImagePrediction found;
    double peak = 0;     // largest heat
    cv::Point position;  // of the peak, in pixels of the image
};

/// One artifact in an ONNX Runtime session.
class Inspector {
public:
    Inspector(const std::string& path, std::optional<std::string> category, int threads)
        // The checked bytes are the ones that are run, not the file read again.
        : content_(inspect_kd::read_onnx(path)), card_(parse_card(inspect_kd::card_text(content_), std::move(category))),
          session_(env_, content_.data(), content_.size(), options(threads)), weights_side_(check_signature()) {}

    const Card& card() const { return card_; }

    Prediction predict(const cv::Mat& image) {
        card_.presentations.check_size(image.size(), card_.category);
        const auto predict_one = [this](const cv::Mat& frame, const cv::Mat& weights) { return predict_frame(frame, weights); };
        return summarise(card_.presentations.predict(image, card_.category, predict_one, weights_side_), image.size());
    }

private:
    static Ort::SessionOptions options(int threads) {
        Ort::SessionOptions options;
        options.SetIntraOpNumThreads(threads);
        options.SetLogSeverityLevel(ORT_LOGGING_LEVEL_FATAL);
        // By default it also accepts its own format, which onnx_file.hpp does not check.
        options.AddConfigEntry("session.load_model_format", "ONNX");
        // Spinning threads starve each other on a small machine.
        options.AddConfigEntry("session.intra_op.allow_spinning", "0");
        options.AddConfigEntry("session.set_denormal_as_zero", "1");
        return options;
    }

    /// The shape of an input, if it has this name and type.
    std::vector<std::int64_t> input_shape(std::size_t number, std::string_view name, ONNXTensorElementDataType type) const {
        Ort::AllocatorWithDefaultOptions allocator;
        if (std::string_view(session_.GetInputNameAllocated(number, allocator).get()) != name) return {};
        const auto input = session_.GetInputTypeInfo(number);
        const auto info = input.GetTensorTypeAndShapeInfo();
        return info.GetElementType() == type ? info.GetShape() : std::vector<std::int64_t>();
    }

    /// Refuse a file whose inputs and outputs contradict its card; returns the side of the zones' weights, if it takes them.
    std::optional<int> check_signature() const {
        const bool has_zones = card_.presentations.has_zones();
        std::optional<int> side;
        Ort::AllocatorWithDefaultOptions allocator;
        std::set<std::string> outputs;
        for (std::size_t i = 0; i < session_.GetOutputCount(); ++i) outputs.insert(session_.GetOutputNameAllocated(i, allocator).get());
        bool fine = outputs.count("heatmap") == 1 && outputs.count("score") == 1 && session_.GetInputCount() == (has_zones ? 2U : 1U);
        if (fine) {
            const std::vector<std::int64_t> shape = input_shape(0, "images", ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8);
            fine = shape.size() == 4 && shape[1] == card_.size && shape[2] == card_.size && shape[3] == 3;
        }
        if (fine && has_zones) {
            const std::vector<std::int64_t> shape = input_shape(1, "weights", ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT);
            fine = shape.size() == 4 && shape[1] == 1 && shape[2] == shape[3] && shape[3] >= 1 && card_.size % shape[3] == 0;
            if (fine) side = static_cast<int>(shape[3]);
        }
        if (!fine) {
            throw BadInput("its inputs and outputs are not those of an inspect-kd artifact of size " + std::to_string(card_.size) +
                           (has_zones ? " with zones" : ""));
        }
        return side;
    }

    /// Predict one frame of the model's size; `weights` is empty for an artifact without zones.
    inspect_kd::FramePrediction predict_frame(const cv::Mat& frame, const cv::Mat& weights) {
        const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
        const std::vector<std::int64_t> shape{1, card_.size, card_.size, 3}, weights_shape{1, 1, weights.rows, weights.cols};
        std::vector<Ort::Value> inputs;
        inputs.push_back(Ort::Value::CreateTensor<std::uint8_t>(memory, frame.data, frame.total() * 3, shape.data(), shape.size()));
        if (!weights.empty()) {
            auto* const values = const_cast<float*>(weights.ptr<float>());  // ONNX Runtime does not change its inputs
            inputs.push_back(Ort::Value::CreateTensor<float>(memory, values, weights.total(), weights_shape.data(), weights_shape.size()));
        }
        const char* const in[] = {"images", "weights"};
        const char* const out[] = {"score", "heatmap"};
        std::vector<Ort::Value> outputs = session_.Run(Ort::RunOptions{nullptr}, in, inputs.data(), inputs.size(), out, 2);
        const auto score_info = outputs[0].GetTensorTypeAndShapeInfo(), heat_info = outputs[1].GetTensorTypeAndShapeInfo();
        constexpr auto kFloat = ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
        const std::vector<std::int64_t> score_shape{1}, heat_shape{1, 1, card_.size, card_.size};
        if (score_info.GetElementType() != kFloat || score_info.GetShape() != score_shape ||
            heat_info.GetElementType() != kFloat || heat_info.GetShape() != heat_shape) {
            throw BadInput("the artifact's outputs do not have the shapes of one image's score and heatmap");
        }
        // Copied, because the memory is freed with the outputs.
        const cv::Mat heat(card_.size, card_.size, CV_32F, outputs[1].GetTensorMutableData<float>());
        return {*outputs[0].GetTensorData<float>(), heat.clone()};
    }

    static Prediction summarise(inspect_kd::ImagePrediction found, cv::Size image) {
        // checkRange() refuses NaN and infinities.
        if (!std::isfinite(found.score) || !cv::checkRange(found.heatmap)) {
            throw BadInput("the artifact's score or heatmap is not finite; treat the part as NG");
        }
        Prediction prediction{std::move(found), 0, {}};
        cv::Point hottest;
        cv::minMaxLoc(prediction.found.heatmap, nullptr, &prediction.peak, nullptr, &hottest);
        const auto place = [](int at, int cells, int pixels) {
            return std::min(pixels - 1, static_cast<int>((at + 0.5) * (static_cast<double>(pixels) / cells)));
        };
        prediction.position = {place(hottest.x, prediction.found.heatmap.cols, image.width),
                               place(hottest.y, prediction.found.heatmap.rows, image.height)};
        return prediction;
    }

    Ort::Env env_{ORT_LOGGING_LEVEL_FATAL, "inspect_kd"};
    std::string content_;
    Card card_;
    Ort::Session session_;
    std::optional<int> weights_side_;
};

double rounded(double value, double steps) { return std::round(value * steps) / steps; }

/// Write a heatmap as NumPy's .npy.
void write_heatmap(const cv::Mat& heat, const std::string& path) {
    const std::string shape = std::to_string(heat.rows) + ", " + std::to_string(heat.cols);
    std::string header = "{'descr': '<f4', 'fortran_order': False, 'shape': (" + shape + "), }";
    header.resize(117, ' ');
    std::ofstream file(path, std::ios::binary);
    // Version 1.0, and a header of 118 bytes: the pixels then start at a multiple of 64.
    file << std::string("\x93NUMPY\x01\x00\x76\x00", 10) << header << '\n';
    for (int row = 0; row < heat.rows; ++row) file.write(reinterpret_cast<const char*>(heat.ptr(row)), std::streamsize{4} * heat.cols);
    if (!file.flush()) throw BadInput("cannot write " + path);
}

Json inspect(Inspector& inspector, const std::string& path, const std::string& heatmap_path) {
    const cv::Mat image = inspect_kd::read_image(path, inspector.card().bits);
    const auto start = std::chrono::steady_clock::now();
    const Prediction prediction = inspector.predict(image);
    const std::chrono::duration<double, std::milli> elapsed = std::chrono::steady_clock::now() - start;
    if (!heatmap_path.empty()) write_heatmap(prediction.found.heatmap, heatmap_path);
    const Thresholds& limits = inspector.card().thresholds;
    Json line{
        {"image", path},
        {"score", rounded(prediction.found.score, 1e6)},
        {"decision", limits.decide(prediction.found.score)},
        {"thresholds", {{"reinspect", limits.reinspect}, {"reject", limits.reject}}},
        {"image_size", {image.cols, image.rows}},
        {"peak", rounded(prediction.peak, 1e6)},
        {"peak_x", prediction.position.x},
        {"peak_y", prediction.position.y},
        {"milliseconds", rounded(elapsed.count(), 1e3)},
    };
    if (prediction.found.category) line["category"] = *prediction.found.category;
    if (prediction.found.not_found) {
        line["cause"] = "not_found";
        line["explanation"] = *prediction.found.not_found;
    }
    return line;
}

struct Arguments {
    std::string artifact;
    std::optional<std::string> category;
    int threads = 1;
    std::string heatmaps;  // folder
    std::vector<std::string> images;
};

Arguments parse_arguments(const std::vector<std::string>& words) {
    Arguments arguments;
    std::vector<std::string> files;
    for (std::size_t i = 0; i < words.size(); ++i) {
        const bool option = words[i] == "--category" || words[i] == "--threads" || words[i] == "--heatmaps";
        if (!option && words[i].rfind("--", 0) == 0) throw UsageError("no option " + words[i]);
        if (!option) { files.push_back(words[i]); continue; }
        if (i + 1 == words.size()) throw UsageError(words[i] + " needs a value");
        const std::string& value = words[++i];
        if (words[i - 1] == "--category") { arguments.category = value; continue; }
        if (words[i - 1] == "--heatmaps") { arguments.heatmaps = value; continue; }
        if (value.empty() || value.size() > 3 || value.find_first_not_of("0123456789") != value.npos || std::stoi(value) < 1) {
            throw UsageError("--threads takes a number from 1 to 999");
        }
        arguments.threads = std::stoi(value);
    }
    if (files.size() < 2) throw UsageError("usage: inspect_kd_cpp ARTIFACT [--category NAME] [--threads N] [--heatmaps FOLDER] IMAGE...");
    arguments.artifact = files.front();
    arguments.images.assign(files.begin() + 1, files.end());
    return arguments;
}

/// Print the lines of all images; false if one could not be inspected.
bool inspect_all(Inspector& inspector, const Arguments& arguments) {
    bool fine = true;
    for (std::size_t i = 0; i < arguments.images.size(); ++i) {
        const std::string& path = arguments.images[i];
        Json line;
        try {
            line = inspect(inspector, path, arguments.heatmaps.empty() ? "" : arguments.heatmaps + '/' + std::to_string(i) + ".npy");
        } catch (const std::exception& error) {
            // After any error the part is NG, and the next image follows.
            fine = false;
            line = {{"image", path}, {"decision", "NG"}, {"error", path + ": " + error.what()}};
            std::cerr << path << ": " << error.what() << '\n';
        }
        std::cout << line.dump(-1, ' ', true, Json::error_handler_t::replace) << std::endl;
    }
    return fine && std::cout.good();
}

}  // namespace

int main(int count, char** words) {
    Arguments arguments;
    const auto fail = [&](Exit code, const std::exception& error) {
        std::cerr << (arguments.artifact.empty() ? "" : arguments.artifact + ": ") << error.what() << '\n';
        return code;
    };
    try {
        arguments = parse_arguments({words + 1, words + count});
        // Null if the headers are newer than the library.
        const OrtApi* api = OrtGetApiBase()->GetApi(ORT_API_VERSION);
        if (api == nullptr) throw EnvironmentFault("ONNX Runtime is older than the headers that this program was built with");
        Ort::InitApi(api);
        cv::setNumThreads(arguments.threads);
        Inspector inspector(arguments.artifact, arguments.category, arguments.threads);
        return inspect_all(inspector, arguments) ? kFine : kBadInput;
    } catch (const UsageError& error) {
        return fail(kUsage, error);
    } catch (const EnvironmentFault& error) {
        return fail(kEnvironment, error);
    } catch (const std::exception& error) {
        // Includes ONNX Runtime's errors for files that it cannot run.
        return fail(kBadInput, error);
    }
}
