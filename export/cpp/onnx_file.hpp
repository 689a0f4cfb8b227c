// Read an ONNX file's protobuf without a runtime: find its card, refuse tensors that are stored in other files. The same rules as
// inspect_kd/export/wire.py.
//
// Even for a model loaded from bytes, ONNX Runtime reads tensors from other files below the working directory. So every field that
// can hold a tensor is checked before the runtime opens the file.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "read_image.hpp"

namespace inspect_kd {

enum Wire : std::uint64_t { kVarint = 0, kFixed64 = 1, kLength = 2, kFixed32 = 5 };
enum class Kind { kModel, kTraining, kFunction, kGraph, kNode, kAttribute, kSparse, kTensor };

constexpr int kDeepest = 64;  // nested graphs
constexpr std::size_t kMostFields = 1 << 20;  // in all messages
constexpr std::uint64_t kGraphField = 7, kMetadata = 14, kKeyField = 1, kValueField = 2, kExternalData = 13, kLocation = 14;

[[noreturn]] inline void refuse_invalid() { throw BadInput("not an ONNX file, or a truncated one"); }

struct Field {
    std::uint64_t number = 0, wire = 0;
    std::uint64_t value = 0;    // of other wire types
    std::string_view content;   // of wire type kLength
};

/// Iterates over the fields of one message.
class Fields {
public:
    /// `count` is shared by all messages.
    Fields(std::string_view message, std::size_t& count) : message_(message), count_(count) {}

    std::optional<Field> next() {
        if (position_ == message_.size()) return std::nullopt;
        if (++count_ > kMostFields) throw BadInput("more than 1048576 protobuf fields; no artifact of inspect-kd has as many");
        const std::uint64_t tag = varint();
        // Other readers truncate a longer tag to 32 bits, and would see another field.
        if (tag >> 32 != 0 || tag < 8) refuse_invalid();
        Field field{tag >> 3, tag & 7, 0, {}};
        switch (field.wire) {
            case kVarint: field.value = varint(); break;
            case kLength: field.content = bytes(varint()); break;
            case kFixed64: bytes(8); break;
            case kFixed32: bytes(4); break;
            default: refuse_invalid();
        }
        return field;
    }

private:
    std::string_view bytes(std::uint64_t count) {
        if (count > message_.size() - position_) refuse_invalid();
        const std::string_view content = message_.substr(position_, count);
        position_ += count;
        return content;
    }

    std::uint64_t varint() {
        std::uint64_t value = 0;
        for (int shift = 0; shift < 70; shift += 7) {
            const auto byte = static_cast<std::uint8_t>(bytes(1)[0]);
            // The tenth byte has room for one bit: a reader that truncates would see another number.
            if (shift == 63 && byte > 1) refuse_invalid();
            value |= std::uint64_t{byte & 0x7Fu} << shift;
            if (byte < 0x80) return value;
        }
        refuse_invalid();
    }

    std::string_view message_;
    std::size_t& count_;
    std::size_t position_ = 0;
};

/// Refuse fields that an ONNX model (IR version 13) does not have, and files without exactly one graph.
inline void refuse_other_formats(std::string_view data) {
    static const std::map<std::uint64_t, std::uint64_t> known{
        {1, kVarint}, {2, kLength},         {3, kLength},       {4, kLength},  {5, kVarint},  {6, kLength},
        {8, kLength}, {kGraphField, kLength}, {kMetadata, kLength}, {20, kLength}, {25, kLength}, {26, kLength}};
    int graphs = 0;
    std::size_t count = 0;
    Fields fields(data, count);
    while (const auto field = fields.next()) {
        const auto found = known.find(field->number);
        if (found == known.end() || found->second != field->wire) refuse_invalid();
        graphs += field->number == kGraphField;
    }
    if (graphs != 1) refuse_invalid();
}

/// Kind of the message in a field; none where it cannot hold a tensor.
inline std::optional<Kind> nested_kind(Kind kind, std::uint64_t field) {
    static const std::map<Kind, std::map<std::uint64_t, Kind>> table{
        {Kind::kModel, {{kGraphField, Kind::kGraph}, {20, Kind::kTraining}, {25, Kind::kFunction}}},
        {Kind::kTraining, {{1, Kind::kGraph}, {2, Kind::kGraph}}},
        {Kind::kFunction, {{7, Kind::kNode}, {11, Kind::kAttribute}}},
        {Kind::kGraph, {{1, Kind::kNode}, {5, Kind::kTensor}, {15, Kind::kSparse}}},
        {Kind::kNode, {{5, Kind::kAttribute}}},
        {Kind::kAttribute,
         {{5, Kind::kTensor}, {6, Kind::kGraph}, {10, Kind::kTensor}, {11, Kind::kGraph}, {22, Kind::kSparse}, {23, Kind::kSparse}}},
        {Kind::kSparse, {{1, Kind::kTensor}, {2, Kind::kTensor}}},
        {Kind::kTensor, {}},
    };
    const auto& fields = table.at(kind);
    const auto found = fields.find(field);
    return found == fields.end() ? std::nullopt : std::optional<Kind>(found->second);
}

/// Throw if a tensor is stored in another file, or if the bytes are no ONNX file.
inline void refuse_external_data(std::string_view data) {
    refuse_other_formats(data);
    struct Message {
        std::string_view content;
        Kind kind;
        int depth;
    };
    std::vector<Message> stack{{data, Kind::kModel, 0}};
    std::size_t count = 0;
    while (!stack.empty()) {
        const Message message = stack.back();
        stack.pop_back();
        if (message.depth > kDeepest) throw BadInput("graphs are nested more than 64 deep; no artifact of inspect-kd is");
        Fields fields(message.content, count);
        while (const auto field = fields.next()) {
            const bool external = field->number == kLocation && (field->wire != kVarint || field->value != 0);
            if (message.kind == Kind::kTensor && (field->number == kExternalData || external)) {
                throw BadInput("a tensor in it lies in another file; an artifact must be a single file");
            }
            const auto inner = nested_kind(message.kind, field->number);
            if (!inner) continue;
            if (field->wire != kLength) refuse_invalid();
            stack.push_back({field->content, *inner, message.depth + 1});
        }
    }
}

/// Text of the card in the file's metadata.
inline std::string card_text(std::string_view data) {
    std::vector<std::string> cards;
    std::size_t count = 0;
    Fields fields(data, count);
    while (const auto entry = fields.next()) {
        if (entry->number != kMetadata) continue;
        std::string key, value;
        Fields pair(entry->content, count);
        while (const auto field = pair.next()) {
            if (field->wire == kLength && field->number == kKeyField) key = field->content;
            if (field->wire == kLength && field->number == kValueField) value = field->content;
        }
        if (key == "inspect_kd") cards.push_back(std::move(value));
    }
    if (cards.empty()) throw BadInput("an ONNX file, but not an inspect-kd artifact: it carries no card");
    if (cards.size() > 1) throw BadInput("it carries " + std::to_string(cards.size()) + " cards; export it again");
    return cards.front();
}

/// Read a file and check that it is an ONNX file without external data.
inline std::string read_onnx(const std::string& path) {
    std::string content = read_file(path);
    refuse_external_data(content);
    return content;
}

}  // namespace inspect_kd
