// Executes the conformance scenario with grpc++ and prints its transcript: run TARGET SCENARIO. See README.md.

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <map>
#include <regex>
#include <set>

#include <google/protobuf/util/json_util.h>
#include <google/protobuf/util/time_util.h>
#include <grpcpp/generic/generic_stub.h>
#include <nlohmann/json.hpp>

#include "errors.pb.h"
#include "session_sidecar.h"
#include "sessionsidecar/dev/v1/test_clock_service.grpc.pb.h"
#include "sessionsidecar/v1/session_admin_service.grpc.pb.h"

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using Json = nlohmann::ordered_json;
using Lines = std::vector<std::string>;
namespace v1 = sessionsidecar::v1;
namespace wire = sessionsidecar::client::v1;

namespace {

constexpr auto kPatience = std::chrono::seconds(30);  // Only a failing run waits as long.
const std::set<std::string> kForPeople = {"summary", "explanation", "problem", "toml"};  // May be reworded.

bool ends_with(const std::string& text, const std::string& end) { return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0; }

Lines indented(Lines lines) {
    for (auto& line : lines) line = "  " + line;
    return lines;
}

void append(Lines* lines, const Lines& more) { lines->insert(lines->end(), more.begin(), more.end()); }

// JSON as the scenario's authors, and Python, write it: with a blank after each comma and colon.
std::string written(const Json& value) {
    if (!value.is_structured()) return value.dump();
    std::string inner;
    for (const auto& [key, item] : value.items()) {
        if (!inner.empty()) inner += ", ";
        inner += value.is_object() ? Json(key).dump() + ": " + written(item) : written(item);
    }
    return value.is_object() ? "{" + inner + "}" : "[" + inner + "]";
}

// What ids and refs are called in the transcript, where they must not stand themselves.
class Names {
   public:
    // A page token is told as `<token:page>`, and meant by `$page.token`.
    void learn_page(const std::string& token) {
        for (auto each = shown_.begin(); each != shown_.end();) each = each->second == "<token:page>" ? shown_.erase(each) : std::next(each);
        shown_[token] = "<token:page>";
    }

    void learn(const std::string& alias, const std::string& id, const std::string& ref) {
        shown_.emplace(id, "<id:" + alias + ">");
        shown_.emplace(ref, "<ref:" + alias + ">");
    }

    // The id of `$alias`, the ref of `$alias.ref`.
    std::string value(const std::string& name) const {
        const auto dot = name.find('.');
        const std::string kind = dot == std::string::npos ? "id" : name.substr(dot + 1);
        const std::string wanted = "<" + kind + ":" + name.substr(1, dot == std::string::npos ? dot : dot - 1) + ">";
        for (const auto& [value, shown] : shown_) {
            if (shown == wanted) return value;
        }
        throw std::runtime_error("nothing is called " + name);
    }

    // Refs of sessions that nobody created are numbered.
    std::string shown(const std::string& key, const std::string& value) {
        if (key == "session_ref" && !value.empty() && !shown_.count(value)) shown_[value] = "<ref:unknown-" + std::to_string(++unknown_) + ">";
        const auto found = shown_.find(value);
        return found == shown_.end() ? value : found->second;
    }

   private:
    std::map<std::string, std::string> shown_;
    int unknown_ = 0;
};

// In steps of ten seconds, from 6.5 s below to 3.5 s above: real time passes between two steps too, and most times get less by it.
std::string duration(double seconds) {
    const long near = static_cast<long>(std::floor((seconds + 6.5) / 10)) * 10;
    const long rest = std::labs(near);
    std::string told;
    if (rest / 3600) told += std::to_string(rest / 3600) + "h";
    if (rest / 60 % 60) told += std::to_string(rest / 60 % 60) + "m";
    if (rest % 60) told += std::to_string(rest % 60) + "s";
    return (near < 0 ? "-" : "") + (told.empty() ? "0s" : told);
}

// Of a Duration or Timestamp.
double seconds(const Message& message) {
    const auto* type = message.GetDescriptor();
    const auto* access = message.GetReflection();
    return access->GetInt64(message, type->FindFieldByName("seconds")) + access->GetInt32(message, type->FindFieldByName("nanos")) / 1e9;
}

bool is_now(const FieldDescriptor* field) { return field->name() == "server_time" || field->name() == "emit_time"; }

std::vector<const FieldDescriptor*> fields_of(const Message& message) {
    std::vector<const FieldDescriptor*> fields;
    message.GetReflection()->ListFields(message, &fields);
    return fields;
}

// The sidecar's clock when it made this message: the first that is told in it.
std::optional<double> find_now(const Message& message) {
    const auto* access = message.GetReflection();
    for (const auto* field : fields_of(message)) {
        if (is_now(field)) return seconds(access->GetMessage(message, field));
        if (field->cpp_type() != FieldDescriptor::CPPTYPE_MESSAGE || field->is_map()) continue;
        const int count = field->is_repeated() ? access->FieldSize(message, field) : 1;
        for (int place = 0; place < count; ++place) {
            const auto& item = field->is_repeated() ? access->GetRepeatedMessage(message, field, place) : access->GetMessage(message, field);
            if (const auto now = find_now(item)) return now;
        }
    }
    return std::nullopt;
}

// A value that is no message; `place` is -1 if the field is not repeated.
std::string plain(Names* names, const Message& message, const FieldDescriptor* field, int place) {
    const auto* access = message.GetReflection();
    const bool many = place >= 0;
    switch (field->cpp_type()) {
        case FieldDescriptor::CPPTYPE_STRING:
            return names->shown(field->name(), many ? access->GetRepeatedString(message, field, place) : access->GetString(message, field));
        case FieldDescriptor::CPPTYPE_ENUM:
            return (many ? access->GetRepeatedEnum(message, field, place) : access->GetEnum(message, field))->name();
        case FieldDescriptor::CPPTYPE_BOOL:
            return access->GetBool(message, field) ? "true" : "false";
        case FieldDescriptor::CPPTYPE_INT32:
            return std::to_string(access->GetInt32(message, field));
        case FieldDescriptor::CPPTYPE_UINT32:
            return std::to_string(access->GetUInt32(message, field));
        case FieldDescriptor::CPPTYPE_UINT64:
            return std::to_string(access->GetUInt64(message, field));
        default:
            throw std::runtime_error("a field of a new type: " + field->full_name());
    }
}

// One line for each field that is set. Times are told relative to the message's own.
Lines flatten(Names* names, const Message& message, const std::string& prefix = "", std::optional<double> now = {}) {
    if (!now) now = find_now(message);
    const auto* access = message.GetReflection();
    Lines lines;
    for (const auto* field : fields_of(message)) {
        if (is_now(field) || field->name() == "resume_token" || (ends_with(prefix, "error.") && field->name() == "message")) continue;
        const int count = field->is_repeated() ? access->FieldSize(message, field) : 1;
        for (int place = 0; place < count; ++place) {
            std::string path = prefix + field->name();
            if (field->cpp_type() != FieldDescriptor::CPPTYPE_MESSAGE) {
                if (field->is_repeated()) path += "[" + std::to_string(place) + "]";
                // A watch that its client has just left may still be there.
                const bool watchers = field->name() == "watcher_count";
                const std::string value = watchers ? "<watchers>" : kForPeople.count(field->name()) ? "<text>" : plain(names, message, field, field->is_repeated() ? place : -1);
                lines.push_back(path + " = " + value);
                continue;
            }
            const auto& item = field->is_repeated() ? access->GetRepeatedMessage(message, field, place) : access->GetMessage(message, field);
            const std::string& kind = field->message_type()->full_name();
            if (field->is_map()) {
                const auto* entry = item.GetDescriptor();
                lines.push_back(path + "." + plain(names, item, entry->map_key(), -1) + " = " + plain(names, item, entry->map_value(), -1));
                continue;
            }
            if (field->is_repeated()) path += "[" + std::to_string(place) + "]";
            if (kind == "google.protobuf.Timestamp") {
                lines.push_back(path + " = now " + duration(seconds(item) - *now));
            } else if (kind == "google.protobuf.Duration") {
                lines.push_back(path + " = " + duration(seconds(item)));
            } else {
                const auto own = find_now(item);
                const Lines inner = flatten(names, item, path + ".", own ? own : now);
                append(&lines, inner.empty() ? Lines{path + " = {}"} : inner);
            }
        }
    }
    std::sort(lines.begin(), lines.end());
    return lines;
}

const char* name_of(grpc::StatusCode code) {
    static const char* const kNames[] = {"OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED",
        "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED"};
    return kNames[code];
}

// An error: its code and typed details. Messages are for people, and may be reworded.
Lines failed(Names* names, const grpc::Status& status) {
    Lines lines;
    wire::Status details;
    details.ParseFromString(status.error_details());
    for (const auto& detail : details.details()) {
        wire::ErrorInfo info;
        wire::BadRequest bad;
        if (ends_with(detail.type_url(), ".ErrorInfo") && info.ParseFromString(detail.value())) {
            lines.push_back("ErrorInfo.domain = " + info.domain());
            lines.push_back("ErrorInfo.reason = " + info.reason());
            for (const auto& [key, value] : info.metadata()) {
                google::protobuf::Timestamp time;
                const bool is_time = ends_with(key, "_time");
                if (is_time && !google::protobuf::util::TimeUtil::FromString(value, &time)) throw std::runtime_error(key + " is not a time");
                lines.push_back("ErrorInfo.metadata." + key + " = " + (is_time ? "<time>" : names->shown(key, value)));
            }
        } else if (ends_with(detail.type_url(), ".BadRequest") && bad.ParseFromString(detail.value())) {
            for (const auto& violation : bad.field_violations()) lines.push_back("BadRequest.field = " + violation.field());
        }
    }
    std::sort(lines.begin(), lines.end());
    Lines all{name_of(status.error_code())};
    append(&all, indented(lines));
    return all;
}

// A message of the API by its name.
std::unique_ptr<Message> made(const std::string& name) {
    const auto* type = google::protobuf::DescriptorPool::generated_pool()->FindMessageTypeByName(name);
    if (!type) throw std::runtime_error("there is no " + name);
    return std::unique_ptr<Message>(google::protobuf::MessageFactory::generated_factory()->GetPrototype(type)->New());
}

// One watch, on a connection of its own, and the last token that came.
class Watcher {
   public:
    Watcher(std::string target, v1::WatchExpiryRequest request) : target_(std::move(target)), request_(std::move(request)) { open(); }

    void cut() {
        context_->TryCancel();
        while (reader_->Read(&message_)) continue;
        reader_.reset();
        stub_.reset();
    }

    void resume() {
        // A resumed watch does not begin with the state again.
        request_.set_include_initial_state(false);
        request_.set_resume_token(token_);
        open();
    }

    // The next message, or how the stream ended.
    Lines read(Names* names) {
        if (reader_->Read(&message_)) {
            token_ = message_.resume_token();
            if (token_.empty()) throw std::runtime_error("a message without a resume token");
            return flatten(names, message_);
        }
        return failed(names, reader_->Finish());
    }

   private:
    void open() {
        stub_ = v1::SessionService::NewStub(session_sidecar::connect(target_, true));
        context_ = std::make_unique<grpc::ClientContext>();
        context_->set_deadline(std::chrono::system_clock::now() + 2 * kPatience);
        reader_ = stub_->WatchExpiry(context_.get(), request_);
    }

    std::string target_, token_;
    v1::WatchExpiryRequest request_;
    v1::WatchExpiryResponse message_;
    std::unique_ptr<grpc::ClientContext> context_;
    std::unique_ptr<v1::SessionService::Stub> stub_;
    std::unique_ptr<grpc::ClientReader<v1::WatchExpiryResponse>> reader_;
};

// Executes steps; each returns the lines of its transcript.
class Runner {
   public:
    explicit Runner(const std::string& target) : target_(target), channel_(session_sidecar::connect(target)) {}

    Lines step(const Json& step) {
        const std::string kind = step.begin().key();
        const Json& given = step.begin().value();
        if (kind == "note") return {"", "# " + given.get<std::string>()};
        if (kind == "call") return ask(step, given, "sessionsidecar.v1.SessionService");
        if (kind == "admin") return ask(step, given, "sessionsidecar.v1.SessionAdminService");
        if (kind == "advance") return advance(given);
        if (kind == "read") return read(given, step["count"], step.value("any_order", 0));
        if (kind == "stop") return stop(given);
        const std::string name = given;
        if (kind == "watch") {
            watchers_.insert_or_assign(name, std::make_unique<Watcher>(target_, request<v1::WatchExpiryRequest>(step["request"])));
            return {"Watch (" + name + ") " + written(step["request"])};
        }
        if (kind == "cut") {
            watchers_.at(name)->cut();
            return {"Cut (" + name + ")"};
        }
        if (kind == "resume") {
            watchers_.at(name)->resume();
            return {"Resume (" + name + ")"};
        }
        throw std::runtime_error("what is " + kind + "?");
    }

   private:
    void fill(const Json& content, Message* request) {
        std::string text = content.dump(), filled;
        static const std::regex kName("\"(\\$[^\"]+)\"");
        auto rest = text.cbegin();
        for (std::sregex_iterator found(text.begin(), text.end(), kName), end; found != end; ++found) {
            filled.append(rest, (*found)[0].first);
            filled += Json(names_.value((*found)[1])).dump();
            rest = (*found)[0].second;
        }
        filled.append(rest, text.cend());
        const auto parsed = google::protobuf::util::JsonStringToMessage(filled, request);
        if (!parsed.ok()) throw std::runtime_error(parsed.ToString());
    }

    template <class Request>
    Request request(const Json& content) {
        Request request;
        fill(content, &request);
        return request;
    }

    // A call of any verb: requests and answers are found by name.
    grpc::Status call(const std::string& service, const std::string& verb, const Message& request, Message* answer) {
        grpc::ClientContext context;
        context.set_deadline(std::chrono::system_clock::now() + kPatience);
        grpc::TemplatedGenericStub<Message, Message> stub(channel_);
        grpc::CompletionQueue queue;
        const auto call = stub.PrepareUnaryCall(&context, "/" + service + "/" + verb, request, &queue);
        call->StartCall();
        grpc::Status status;
        call->Finish(answer, &status, nullptr);
        void* tag;
        bool ok;
        queue.Next(&tag, &ok);
        return status;
    }

    Lines ask(const Json& step, const std::string& verb, const std::string& service) {
        const auto request = made("sessionsidecar.v1." + verb + "Request"), answer = made("sessionsidecar.v1." + verb + "Response");
        fill(step["request"], request.get());
        const grpc::Status status = call(service, verb, *request, answer.get());
        Lines outcome;
        if (status.ok()) {
            learn(step, *answer);
            outcome = {"OK"};
            append(&outcome, indented(flatten(&names_, *answer)));
        } else {
            outcome = failed(&names_, status);
        }
        Lines lines{verb + " " + written(step["request"])};
        append(&lines, indented(outcome));
        return lines;
    }

    void learn(const Json& step, const Message& answer) {
        const auto* access = answer.GetReflection();
        const auto* type = answer.GetDescriptor();
        if (step.contains("as")) {
            const auto& session = dynamic_cast<const v1::Session&>(access->GetMessage(answer, type->FindFieldByName("session")));
            names_.learn(step["as"], access->GetString(answer, type->FindFieldByName("session_id")), session.status().session_ref());
        }
        if (const auto* token = type->FindFieldByName("next_page_token")) {
            if (!access->GetString(answer, token).empty()) names_.learn_page(access->GetString(answer, token));
        }
    }

    Lines advance(const std::string& duration) {
        const auto asked = request<sessionsidecar::dev::v1::AdvanceRequest>({{"duration", duration}});
        sessionsidecar::dev::v1::AdvanceResponse answer;
        const grpc::Status status = call("sessionsidecar.dev.v1.TestClockService", "Advance", asked, &answer);
        if (!status.ok()) throw std::runtime_error(status.error_message());
        return {"Advance " + duration};
    }

    Lines read(const std::string& name, int count, int unordered) {
        std::vector<Lines> messages;
        for (int place = 0; place < count; ++place) messages.push_back(watchers_.at(name)->read(&names_));
        std::sort(messages.begin(), messages.begin() + unordered);
        Lines lines;
        for (const auto& message : messages) {
            lines.push_back("Read (" + name + ")");
            append(&lines, indented(message));
        }
        return lines;
    }

    Lines stop(const Json& names) {
        // The driver waits for this line, and stops the sidecar.
        std::cout << "Stop" << std::endl;
        Lines lines;
        for (const std::string name : names) append(&lines, read(name, 2, 0));
        return lines;
    }

    std::string target_;
    std::shared_ptr<grpc::Channel> channel_;
    Names names_;
    std::map<std::string, std::unique_ptr<Watcher>> watchers_;
};

}  // namespace

int main(int, char** arguments) {
    // What is only found by name would not be linked in.
    v1::ListSessionsRequest::descriptor();
    Runner runner(arguments[1]);
    std::ifstream scenario(arguments[2]);
    for (const Json& step : Json::parse(scenario)) {
        for (const auto& line : runner.step(step)) std::cout << line << std::endl;
    }
}
