// A client of the session-sidecar beside this process. Copy this folder, and generate the API with protoc and grpc_cpp_plugin
// from proto/ and clients/python/proto/errors.proto. C++17, gRPC 1.51 or newer.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <variant>
#include <vector>

#include <grpcpp/grpcpp.h>

#include "sessionsidecar/v1/session_service.grpc.pb.h"

namespace session_sidecar {

namespace api = sessionsidecar::v1;

// What becomes of Unreachable answers: nobody goes on while nobody knows, or everybody does. What has ended stays ended with either.
enum class Fail { kClosed, kOpen };

struct Options {
    // host:port, unix:/path or, for TLS, https://host:port. Empty: SESSION_SIDECAR_TARGET, else 127.0.0.1:50151.
    std::string target;
    // With TLS only. PEM of the authorities to trust in place of gRPC's own; of the certificate to show; of its key. Empty:
    // SESSION_SIDECAR_TLS_CA_FILE, …_TLS_CERT_FILE, …_TLS_KEY_FILE.
    std::string tls_ca_file, tls_cert_file, tls_key_file;
    // Its first line that is not empty is the bearer token of every call. Empty: SESSION_SIDECAR_TOKEN_FILE.
    std::string token_file;
    // Of all sessions; most have none.
    std::string tenant;
    Fail fail = Fail::kClosed;
    // How long a call may take, connecting included.
    std::chrono::milliseconds deadline{250};
    // Told once when the sidecar no longer answers, and once when it does again. Default: standard error. Never names a session's id.
    std::function<void(const std::string&)> log;
};

// The answers of `touch` and `check`. Refs name a session in logs, and are no credentials.
struct Live {
    api::SessionStatus status;
    bool counted = false;                 // Whether this touch was activity.
    std::optional<api::Session> session;  // All that is known of it, if `check` asked.
};
struct Ended {
    std::string session_ref;
    api::SessionEnd end;  // Why, by whom and when.
};
// It ended long ago, or never was, or was lost with a sidecar that only had memory.
struct Unknown {
    std::string session_ref;
    bool may_have_ended = false;
};
// Nobody can know now: no answer in time, or the sidecar says that it cannot know.
struct Unreachable {
    bool allowed = false;
    grpc::Status status;
    std::optional<std::chrono::milliseconds> retry_after;
};
using Answer = std::variant<Live, Ended, Unknown, Unreachable>;

// Whether the request may go on.
bool allowed(const Answer& answer);

// What the other verbs throw. No message ever holds a session id.
struct Error : std::runtime_error {
    using std::runtime_error::runtime_error;
};
// A command on a session that is not live: `answer` is Ended or Unknown.
struct SessionOverError : Error {
    explicit SessionOverError(Answer answer);
    Answer answer;
};
// Nobody can know now. The command may have been carried out; repeating it with the same `request_id` is safe.
struct UnreachableError : Error {
    explicit UnreachableError(Unreachable answer);
    Unreachable answer;
};
// The policy or the state refuses; `reason` is one word, such as SESSION_EXISTS, EXTENSION_LIMIT, READ_ONLY_SESSION.
struct RefusedError : Error {
    RefusedError(std::string reason, const std::string& message);
    std::string reason;
};
// A request that can never succeed: a mistake in the program, or an id out of a cookie that cannot be one. `fields` as in the .proto.
struct InvalidRequestError : Error {
    InvalidRequestError(std::vector<std::string> fields, const std::string& message);
    std::vector<std::string> fields;
};
// This listener does not serve this verb or tenant to this caller, or is no sidecar: a mistake in the configuration.
struct NotPermittedError : Error {
    using Error::Error;
};

class Access;
class Watch;

// The client. Make one, and share it among threads. Requests are the API's own messages; tenant, and a `request_id` that makes repeating
// safe, are filled in.
class Sidecar {
   public:
    // Throws std::invalid_argument if an option or a variable is of no use.
    explicit Sidecar(Options options = {});
    ~Sidecar();

    // Starts a session at login, or adopts one that runs already (`authenticated_ago`, `idle_for`).
    api::CreateResponse create(api::CreateRequest request);
    // Reports that the person did something, and answers whether the session lives.
    Answer touch(api::TouchRequest request);
    // The same, for who knows nothing but the id.
    Answer touch(const std::string& session_id, api::Activity activity = api::ACTIVITY_UNSPECIFIED);
    // What a session is. Never extends it.
    Answer check(const std::string& session_id);
    // The person pressed "stay".
    api::ExtendResponse extend(api::ExtendRequest request);
    // Gives a session a new id; with `authenticated_ago` both deadlines begin anew.
    api::RotateResponse rotate(api::RotateRequest request);
    // Ends a session now. One that ended before is answered with its first end.
    api::EndResponse end(api::EndRequest request);
    // Events of the request's scope, for ever: see Watch. The request's tenant is filled in, unless it is for everything.
    Watch watch(api::WatchExpiryRequest request);

   private:
    struct State;
    std::unique_ptr<State> state_;
};

// What a watch tells: a message of the stream other than a heartbeat; or, with `begin_anew`, that resuming was not possible (the reason),
// and that snapshots of what lives follow.
struct Event {
    std::string begin_anew;
    api::WatchExpiryResponse message;
};

// The events of a scope, for ever. It reconnects with full jitter (0.1 s at first, 10 s at most), resumes after the last message that it
// received, and takes a sidecar for gone from which nothing came for three heartbeats. Read in a thread of its own, and do no work there.
class Watch {
   public:
    Watch(std::shared_ptr<Access> access, api::WatchExpiryRequest request);
    Watch(Watch&&) noexcept;
    ~Watch();

    // The next event; nothing after `close`. Throws InvalidRequestError and NotPermittedError, nothing else.
    std::optional<Event> next();
    // Ends it, from any thread.
    void close();
    // Give it to the request of another watch, to go on here after a restart of this program. From the thread that reads.
    const std::string& resume_token() const;

   private:
    struct State;
    std::unique_ptr<State> state_;
};

// A connection to the sidecar, opened at its first call; `lone`: one that no other channel of this process shares.
std::shared_ptr<grpc::Channel> connect(const std::string& target, bool lone = false);

}  // namespace session_sidecar
