#include "session_sidecar.h"

#include <atomic>
#include <iostream>
#include <random>
#include <thread>

#include "access.h"
#include "failure.h"

namespace session_sidecar {

using std::chrono::milliseconds;
using Clock = std::chrono::system_clock;  // What gRPC takes for deadlines.

namespace {

// 144 bits: nobody guesses it.
std::string fresh_request_id() {
    static const char kLetters[] = "0123456789abcdefghijklmnopqrstuv";
    std::random_device random;
    std::string id(30, ' ');
    for (char& letter : id) letter = kLetters[random() % 32];
    return id;
}

const char* name_of(const Answer& answer) { return std::holds_alternative<Ended>(answer) ? "has ended" : "is not known"; }

}  // namespace

bool allowed(const Answer& answer) {
    if (const auto* away = std::get_if<Unreachable>(&answer)) return away->allowed;
    return std::holds_alternative<Live>(answer);
}

SessionOverError::SessionOverError(Answer over) : Error(std::string("the session ") + name_of(over)), answer(std::move(over)) {}
UnreachableError::UnreachableError(Unreachable away) : Error("session-sidecar does not answer: " + away.status.error_message()), answer(std::move(away)) {}
RefusedError::RefusedError(std::string word, const std::string& message) : Error(word + ": " + message), reason(std::move(word)) {}
InvalidRequestError::InvalidRequestError(std::vector<std::string> wrong, const std::string& message) : Error(message), fields(std::move(wrong)) {}

std::shared_ptr<grpc::Channel> connect(const std::string& target, bool lone) {
    Options options;
    options.target = target;
    return Access(options).connect(lone);
}

struct Sidecar::State {
    explicit State(Options given)
        : options(std::move(given)), access(std::make_shared<Access>(options)), stub(api::SessionService::NewStub(access->connect())) {
        if (!options.log) options.log = [](const std::string& line) { std::cerr << line << std::endl; };
    }

    template <class Request, class Response>
    using Verb = grpc::Status (api::SessionService::Stub::*)(grpc::ClientContext*, const Request&, Response*);

    // Makes a call, and once or twice more if its connection was lost: all of these may be made again.
    template <class Request, class Response>
    std::optional<Failure> call(Verb<Request, Response> verb, const Request& request, Response* response) {
        const auto until = Clock::now() + options.deadline;
        // A connection that broke may be taken for whole for a moment more. Of a sidecar that is away nobody expects an answer.
        std::vector<milliseconds> pauses;
        if (!away) pauses = {milliseconds(20), milliseconds(5)};
        while (true) {
            grpc::ClientContext context;
            context.set_deadline(until);
            access->authorize(&context);
            const grpc::Status status = (stub.get()->*verb)(&context, request, response);
            std::optional<Failure> failure;
            if (!status.ok()) failure.emplace(status);
            if (failure && failure->lost_connection() && !pauses.empty() && Clock::now() + pauses.back() < until) {
                std::this_thread::sleep_for(pauses.back());
                pauses.pop_back();
                continue;
            }
            heard(status);
            return failure;
        }
    }

    // For a verb that answers, or throws.
    template <class Request, class Response>
    Response command(Verb<Request, Response> verb, Request request) {
        request.set_tenant(options.tenant);
        if (request.request_id().empty()) request.set_request_id(fresh_request_id());
        Response response;
        if (const auto failure = call(verb, request, &response)) {
            Answer answer = failure->answer(options.fail == Fail::kOpen);
            if (auto* unreachable = std::get_if<Unreachable>(&answer)) throw UnreachableError(std::move(*unreachable));
            throw SessionOverError(std::move(answer));
        }
        return response;
    }

    // Says once that the sidecar is away, and once that it is back. Refusals are answers.
    void heard(const grpc::Status& status) {
        const bool gone = status.error_code() == grpc::UNAVAILABLE || status.error_code() == grpc::DEADLINE_EXCEEDED;
        if (away.exchange(gone) == gone) return;
        options.log("session-sidecar at " + access->target() + (gone ? " does not answer: " + status.error_message() : " answers again"));
    }

    Options options;
    const std::shared_ptr<Access> access;
    const std::unique_ptr<api::SessionService::Stub> stub;
    std::atomic<bool> away{false};
};

Sidecar::Sidecar(Options options) : state_(std::make_unique<State>(std::move(options))) {}
Sidecar::~Sidecar() = default;

api::CreateResponse Sidecar::create(api::CreateRequest request) { return state_->command(&api::SessionService::Stub::Create, std::move(request)); }
api::ExtendResponse Sidecar::extend(api::ExtendRequest request) { return state_->command(&api::SessionService::Stub::Extend, std::move(request)); }
api::RotateResponse Sidecar::rotate(api::RotateRequest request) { return state_->command(&api::SessionService::Stub::Rotate, std::move(request)); }
api::EndResponse Sidecar::end(api::EndRequest request) { return state_->command(&api::SessionService::Stub::End, std::move(request)); }

Answer Sidecar::touch(api::TouchRequest request) {
    request.set_tenant(state_->options.tenant);
    api::TouchResponse response;
    if (const auto failure = state_->call(&api::SessionService::Stub::Touch, request, &response)) return failure->answer(state_->options.fail == Fail::kOpen);
    return Live{response.status(), response.counted(), std::nullopt};
}

Answer Sidecar::touch(const std::string& session_id, api::Activity activity) {
    api::TouchRequest request;
    request.set_session_id(session_id);
    request.set_activity(activity);
    return touch(std::move(request));
}

Answer Sidecar::check(const std::string& session_id) {
    api::CheckRequest request;
    request.set_tenant(state_->options.tenant);
    request.set_session_id(session_id);
    api::CheckResponse response;
    if (const auto failure = state_->call(&api::SessionService::Stub::Check, request, &response)) return failure->answer(state_->options.fail == Fail::kOpen);
    const auto& session = response.session();
    switch (session.status().state()) {
        case api::SESSION_STATE_ACTIVE:
        case api::SESSION_STATE_EXPIRING:
            return Live{session.status(), false, session};
        case api::SESSION_STATE_ENDED:
            return Ended{session.status().session_ref(), session.end()};
        default:
            return Unknown{session.status().session_ref(), session.status().may_have_ended()};
    }
}

Watch Sidecar::watch(api::WatchExpiryRequest request) {
    if (!request.scope().everything()) request.mutable_scope()->set_tenant(state_->options.tenant);
    return Watch(state_->access, std::move(request));
}

}  // namespace session_sidecar
