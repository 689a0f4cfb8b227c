// Inspect images with an inspect-kd artifact: ONNX Runtime's C++ API, OpenCV, and the card inside the file. Nothing else.
//
//     inspect_kd_cpp ARTIFACT [--category NAME] [--threads N] IMAGE...
//
// One JSON line an image, with the fields of `inspect-kd predict`. What cannot be read or is no number is NG with its reason,
// and the exit code is 3: a part is never accepted because something failed.
#define ORT_API_MANUAL_INIT

#include <chrono>
#include <cmath>
#include <cstdint>
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

/// As in the Python program: 2 a wrong call, 3 a bad file, 4 something missing on this machine.
enum Exit { kFine = 0, kUsage = 2, kBadInput = 3, kEnvironment = 4 };

struct UsageError : std::runtime_error {
    using std::runtime_error::runtime_error;
};

struct Answer {
    double score = 0;
    double peak = 0;  // largest heat
    cv::Point2d at;   // its place, as a share of the image's width and height
};

/// One artifact, ready to look at parts.
class Inspector {
public:
    Inspector(const std::string& path, std::optional<std::string> category, int threads)
        // The bytes that were checked are the bytes that are run.
        : content_(inspect_kd::read_onnx(path)), card_(parse_card(inspect_kd::card_text(content_), std::move(category))),
          session_(env_, content_.data(), content_.size(), options(threads)) {
        check_signature();
    }

    const Card& card() const { return card_; }

    Answer look(const cv::Mat& image) {
        cv::Mat frame = inspect_kd::squash(image, card_.size);
        const std::vector<std::int64_t> shape{1, card_.size, card_.size, 3};
        const Ort::Value input = Ort::Value::CreateTensor<std::uint8_t>(
            Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault), frame.data, frame.total() * 3, shape.data(), shape.size());
        const char* const in[] = {"images"};
        const char* const out[] = {"score", "heatmap"};
        const std::vector<Ort::Value> answers = session_.Run(Ort::RunOptions{nullptr}, in, &input, 1, out, 2);
        const auto score_info = answers[0].GetTensorTypeAndShapeInfo(), heat_info = answers[1].GetTensorTypeAndShapeInfo();
        const std::vector<std::int64_t> heat_shape = heat_info.GetShape();
        constexpr auto kFloat = ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
        if (score_info.GetElementType() != kFloat || score_info.GetElementCount() != 1 || heat_info.GetElementType() != kFloat ||
            heat_shape.size() != 4 || heat_info.GetElementCount() == 0) {
            throw BadInput("the artifact's answer has not the shape of one image's score and heatmap");
        }
        return summed_up(*answers[0].GetTensorData<float>(), answers[1].GetTensorData<float>(), heat_info.GetElementCount(), heat_shape);
    }

private:
    static Ort::SessionOptions options(int threads) {
        Ort::SessionOptions options;
        options.SetIntraOpNumThreads(threads);
        options.SetLogSeverityLevel(ORT_LOGGING_LEVEL_FATAL);
        // Left to itself it takes bytes for its own format wherever they look like it, and that is checked by nobody.
        options.AddConfigEntry("session.load_model_format", "ONNX");
        // Threads that wait by spinning starve each other on a small box.
        options.AddConfigEntry("session.intra_op.allow_spinning", "0");
        options.AddConfigEntry("session.set_denormal_as_zero", "1");
        return options;
    }

    /// A file whose shapes contradict its card lies about one of them.
    void check_signature() const {
        Ort::AllocatorWithDefaultOptions allocator;
        std::set<std::string> outputs;
        for (std::size_t i = 0; i < session_.GetOutputCount(); ++i) outputs.insert(session_.GetOutputNameAllocated(i, allocator).get());
        bool fine = outputs.count("heatmap") == 1 && outputs.count("score") == 1 && session_.GetInputCount() == 1 &&
                    std::string_view(session_.GetInputNameAllocated(0, allocator).get()) == "images";
        if (fine) {
            const auto type = session_.GetInputTypeInfo(0);
            const auto info = type.GetTensorTypeAndShapeInfo();
            const std::vector<std::int64_t> shape = info.GetShape();
            fine = info.GetElementType() == ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8 && shape.size() == 4 && shape[1] == card_.size &&
                   shape[2] == card_.size && shape[3] == 3;
        }
        if (!fine) {
            throw BadInput("its inputs and outputs are not those of an inspect-kd artifact of size " + std::to_string(card_.size));
        }
    }

    static Answer summed_up(float score, const float* heat, std::size_t count, const std::vector<std::int64_t>& shape) {
        if (!std::isfinite(score) || !std::all_of(heat, heat + count, [](float value) { return std::isfinite(value); })) {
            throw BadInput("the artifact answered with a number that is not finite; treat the part as NG");
        }
        const auto place = std::max_element(heat, heat + count) - heat;
        const auto row = static_cast<double>(place / shape[3] % shape[2]), column = static_cast<double>(place % shape[3]);
        return {score, heat[place], {(column + 0.5) / static_cast<double>(shape[3]), (row + 0.5) / static_cast<double>(shape[2])}};
    }

    Ort::Env env_{ORT_LOGGING_LEVEL_FATAL, "inspect_kd"};
    std::string content_;
    Card card_;
    Ort::Session session_;
};

double rounded(double value, double steps) { return std::round(value * steps) / steps; }

Json inspect(Inspector& inspector, const std::string& path) {
    const cv::Mat image = inspect_kd::read_image(path, inspector.card().bits);
    const auto start = std::chrono::steady_clock::now();
    const Answer answer = inspector.look(image);
    const std::chrono::duration<double, std::milli> elapsed = std::chrono::steady_clock::now() - start;
    const Thresholds& limits = inspector.card().thresholds;
    return {
        {"image", path},
        {"score", rounded(answer.score, 1e6)},
        {"decision", limits.decide(answer.score)},
        {"thresholds", {{"reinspect", limits.reinspect}, {"reject", limits.reject}}},
        {"image_size", {image.cols, image.rows}},
        {"peak", rounded(answer.peak, 1e6)},
        {"peak_x", std::min(image.cols - 1, static_cast<int>(answer.at.x * image.cols))},
        {"peak_y", std::min(image.rows - 1, static_cast<int>(answer.at.y * image.rows))},
        {"milliseconds", rounded(elapsed.count(), 1e3)},
    };
}

struct Call {
    std::string artifact;
    std::optional<std::string> category;
    int threads = 1;
    std::vector<std::string> images;
};

Call parse_call(const std::vector<std::string>& words) {
    Call call;
    std::vector<std::string> files;
    for (std::size_t i = 0; i < words.size(); ++i) {
        const bool option = words[i] == "--category" || words[i] == "--threads";
        if (!option && words[i].rfind("--", 0) == 0) throw UsageError("no option " + words[i]);
        if (!option) { files.push_back(words[i]); continue; }
        if (i + 1 == words.size()) throw UsageError(words[i] + " needs a value");
        const std::string& value = words[++i];
        if (words[i - 1] == "--category") { call.category = value; continue; }
        if (value.empty() || value.size() > 3 || value.find_first_not_of("0123456789") != value.npos || std::stoi(value) < 1) {
            throw UsageError("--threads takes a number from 1 to 999");
        }
        call.threads = std::stoi(value);
    }
    if (files.size() < 2) throw UsageError("usage: inspect_kd_cpp ARTIFACT [--category NAME] [--threads N] IMAGE...");
    call.artifact = files.front();
    call.images.assign(files.begin() + 1, files.end());
    return call;
}

/// The lines of all images; false where one could not be inspected.
bool inspect_all(Inspector& inspector, const std::vector<std::string>& images) {
    bool fine = true;
    for (const std::string& path : images) {
        Json line;
        try {
            line = inspect(inspector, path);
        } catch (const std::exception& error) {
            // Whatever it was: the part is not accepted, and the batch goes on.
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
    Call call;
    const auto fail = [&](Exit code, const std::exception& error) {
        std::cerr << (call.artifact.empty() ? "" : call.artifact + ": ") << error.what() << '\n';
        return code;
    };
    try {
        call = parse_call({words + 1, words + count});
        // Headers newer than the library: it has no such table of functions, and says so by a null pointer.
        const OrtApi* api = OrtGetApiBase()->GetApi(ORT_API_VERSION);
        if (api == nullptr) throw EnvironmentFault("ONNX Runtime is older than the headers that this program was built with");
        Ort::InitApi(api);
        Inspector inspector(call.artifact, call.category, call.threads);
        return inspect_all(inspector, call.images) ? kFine : kBadInput;
    } catch (const UsageError& error) {
        return fail(kUsage, error);
    } catch (const EnvironmentFault& error) {
        return fail(kEnvironment, error);
    } catch (const std::exception& error) {
        // Among them what ONNX Runtime says of a file that it cannot run.
        return fail(kBadInput, error);
    }
}
