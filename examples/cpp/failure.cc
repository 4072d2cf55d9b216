#include "failure.h"

#include <google/protobuf/util/time_util.h>

#include "errors.pb.h"

namespace session_sidecar {

namespace wire = sessionsidecar::client::v1;
using google::protobuf::util::TimeUtil;

Failure::Failure(const grpc::Status& error) : status(error) {
    wire::Status details;
    if (!details.ParseFromString(error.error_details())) return;  // Then the code has to do.
    for (const auto& detail : details.details()) {
        const std::string name = detail.type_url().substr(detail.type_url().rfind('.') + 1);
        wire::ErrorInfo info;
        wire::BadRequest bad;
        wire::RetryInfo retry;
        if (name == "ErrorInfo" && info.ParseFromString(detail.value())) {
            reason = info.reason();
            told = {info.metadata().begin(), info.metadata().end()};
        } else if (name == "BadRequest" && bad.ParseFromString(detail.value())) {
            for (const auto& violation : bad.field_violations()) fields.push_back(violation.field());
        } else if (name == "RetryInfo" && retry.ParseFromString(detail.value())) {
            retry_after = std::chrono::milliseconds(TimeUtil::DurationToMilliseconds(retry.retry_delay()));
        }
    }
}

bool Failure::lost_connection() const { return status.error_code() == grpc::UNAVAILABLE && reason.empty(); }

void Failure::raise_if_hopeless() const {
    switch (status.error_code()) {
        case grpc::INVALID_ARGUMENT:
            throw InvalidRequestError(fields, status.error_message());
        case grpc::PERMISSION_DENIED:
        case grpc::UNAUTHENTICATED:
        case grpc::UNIMPLEMENTED:
            throw NotPermittedError((reason.empty() ? "" : reason + ": ") + status.error_message());
        default:
            return;
    }
}

Answer Failure::answer(bool allowed) const {
    const auto get = [this](const char* key) {
        const auto found = told.find(key);
        return found == told.end() ? std::string() : found->second;
    };
    if (reason == "SESSION_ENDED") {
        Ended ended{get("session_ref"), {}};
        api::EndReason why;
        api::Actor who;
        if (api::EndReason_Parse("END_REASON_" + get("reason"), &why)) ended.end.set_reason(why);
        if (api::Actor_Parse("ACTOR_" + get("actor"), &who)) ended.end.set_actor(who);
        ended.end.set_actor_id(get("actor_id"));
        ended.end.set_note(get("note"));
        ended.end.set_successor_ref(get("successor_ref"));
        TimeUtil::FromString(get("end_time"), ended.end.mutable_end_time());
        return ended;
    }
    if (reason == "SESSION_UNKNOWN") return Unknown{get("session_ref"), get("may_have_ended") == "true"};
    raise_if_hopeless();
    switch (status.error_code()) {
        case grpc::RESOURCE_EXHAUSTED:
            if (reason.empty()) break;
            [[fallthrough]];
        case grpc::FAILED_PRECONDITION:
        case grpc::NOT_FOUND:
        case grpc::ALREADY_EXISTS:
        case grpc::OUT_OF_RANGE:
            throw RefusedError(reason, status.error_message());
        default:
            break;
    }
    return Unreachable{allowed, status, retry_after};
}

}  // namespace session_sidecar
