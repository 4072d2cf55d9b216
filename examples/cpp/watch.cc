#include <algorithm>
#include <atomic>
#include <cmath>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <random>

#include <google/protobuf/util/time_util.h>

#include "access.h"
#include "failure.h"
#include "session_sidecar.h"

namespace session_sidecar {

using google::protobuf::util::TimeUtil;
using Message = api::WatchExpiryResponse;
using std::chrono::milliseconds;
using std::chrono::steady_clock;

namespace {

constexpr double kFirstPause = 0.1;   // s
constexpr double kLongestPause = 10;  // s
constexpr int kHeartbeat = 15;        // s, unless the request says otherwise
constexpr int kSilentHeartbeats = 3;  // without a message, and a stream is dead

// One stream, on a connection of its own.
class Stream {
   public:
    Stream(Access* access, const api::WatchExpiryRequest& request) : stub_(api::SessionService::NewStub(access->connect(true))) {
        access->authorize(&context_);
        reader_ = stub_->AsyncWatchExpiry(&context_, request, &queue_, nullptr);
    }

    ~Stream() {
        context_.TryCancel();
        if (!finished_) finish();
        queue_.Shutdown();
        void* tag;
        bool ok;
        while (queue_.Next(&tag, &ok)) continue;
    }

    // The next message, if it comes within `patience`; at the end false, and `status` says how it came to that.
    bool next(Message* message, milliseconds patience, grpc::Status* status) {
        if (begun_ || wait(patience)) {
            begun_ = true;
            reader_->Read(message, nullptr);
            if (wait(patience)) return true;
        }
        *status = finish();
        if (silent_) *status = grpc::Status(grpc::UNAVAILABLE, "no heartbeat came in time");
        return false;
    }

    void cancel() { context_.TryCancel(); }

   private:
    // For what was begun last; false if it failed.
    bool wait(milliseconds patience) {
        void* tag;
        bool ok;
        if (queue_.AsyncNext(&tag, &ok, std::chrono::system_clock::now() + patience) == grpc::CompletionQueue::TIMEOUT) {
            silent_ = true;
            context_.TryCancel();
            queue_.Next(&tag, &ok);
        }
        return ok && !silent_;
    }

    grpc::Status finish() {
        finished_ = true;
        grpc::Status status;
        reader_->Finish(&status, this);
        void* tag = nullptr;
        bool ok;
        while (tag != this && queue_.Next(&tag, &ok)) continue;
        return status;
    }

    grpc::ClientContext context_;
    grpc::CompletionQueue queue_;
    std::unique_ptr<api::SessionService::Stub> stub_;
    std::unique_ptr<grpc::ClientAsyncReader<Message>> reader_;
    bool begun_ = false, finished_ = false, silent_ = false;
};

// What a watch asks for next, and what it makes of what comes. It has no clock and does no I/O.
class Course {
   public:
    explicit Course(api::WatchExpiryRequest given) : request(std::move(given)), complete_(!request.resume_token().empty()) {
        if (!request.has_heartbeat_interval()) request.mutable_heartbeat_interval()->set_seconds(kHeartbeat);
    }

    // A stream begins.
    void begin() {
        resumed_ = !request.resume_token().empty();
        held_.clear();
        connected_ = false;
    }

    // Adds what a message tells to `told`.
    void heard(const Message& message, std::deque<Event>* told) {
        connected_ = true;
        const bool snapshot = message.has_snapshot(), last = message.has_snapshot_end();
        sort(message, told);
        complete_ |= last;
        told_some_ |= snapshot;
        if (complete_ && held_.empty()) {
            request.set_resume_token(message.resume_token());
            request.set_include_initial_state(false);
        }
    }

    // After the stream ended, having stood for so many seconds: adds what there is to tell, and answers after how many seconds the next one
    // is due. Throws what no reconnecting can mend.
    double broke(const grpc::Status& status, double stood, std::deque<Event>* told) {
        const Failure failure(status);
        if (status.error_code() == grpc::OUT_OF_RANGE) {
            begin_anew(failure.reason, told);
        } else if (status.error_code() == grpc::INVALID_ARGUMENT && failure.fields == std::vector<std::string>{"resume_token"}) {
            begin_anew("RESUME_TOKEN_INVALID", told);
        } else if (!complete_ && told_some_) {
            begin_anew("INITIAL_STATE_INCOMPLETE", told);
        } else if (!status.ok() && !(connected_ && status.error_code() == grpc::UNAUTHENTICATED)) {
            // But a stream that was let in has outlived its token: the next one shows that of now.
            failure.raise_if_hopeless();
        }
        if (stood >= kLongestPause) failures_ = 0;
        const double most = std::min(kFirstPause * std::pow(2, failures_), kLongestPause);
        failures_ = std::min(failures_ + 1, 16);
        return std::uniform_real_distribution<>(0, most)(random_) + failure.retry_after.value_or(milliseconds(0)).count() / 1000.0;
    }

    api::WatchExpiryRequest request;

   private:
    // The sidecar tells the initial state again to whoever resumes soon after it, with what had happened meanwhile still to come. Snapshots
    // at the start of a resumed stream are that, unless they tell where a session went on.
    void sort(const Message& message, std::deque<Event>* told) {
        if (resumed_ && message.has_snapshot() && !message.snapshot().predecessor_ref().empty()) {
            held_.push_back({"", message});
            return;
        }
        if (resumed_ && (message.has_snapshot() || message.has_snapshot_end())) begin_anew("INITIAL_STATE_AGAIN", told);
        resumed_ = false;
        told->insert(told->end(), held_.begin(), held_.end());
        held_.clear();
        // Nothing is told of heartbeats, nor of what is too new.
        if (message.message_case() != Message::MESSAGE_NOT_SET && !message.has_heartbeat()) told->push_back({"", message});
    }

    void begin_anew(const std::string& reason, std::deque<Event>* told) {
        request.clear_resume_token();
        request.set_include_initial_state(true);
        complete_ = told_some_ = false;
        told->push_back({reason, {}});
    }

    bool complete_;  // Whether the state that the watch began with was told to its end; a token from within it begins it again.
    bool told_some_ = false;
    bool resumed_ = false;    // Whether what comes next may still turn out to be the initial state again.
    std::deque<Event> held_;  // What a resumed stream began with, until that is known.
    bool connected_ = false;  // Whether something came by this stream.
    int failures_ = 0;
    std::mt19937 random_{std::random_device{}()};
};

}  // namespace

struct Watch::State {
    State(std::shared_ptr<Access> given, api::WatchExpiryRequest request) : access(std::move(given)), course(std::move(request)) {}

    bool is_closing() {
        std::unique_lock<std::mutex> guard(lock);
        return closing;
    }

    // Waits for the pause, and opens the next stream; false after `close`.
    bool open() {
        std::unique_lock<std::mutex> guard(lock);
        if (closed.wait_for(guard, std::chrono::duration<double>(pause), [this] { return closing; })) return false;
        course.begin();
        stream = std::make_unique<Stream>(access.get(), course.request);
        began = steady_clock::now();
        return true;
    }

    void read() {
        Message message;
        grpc::Status status;
        const milliseconds silence(kSilentHeartbeats * TimeUtil::DurationToMilliseconds(course.request.heartbeat_interval()));
        if (stream->next(&message, silence, &status)) {
            course.heard(message, &told);
            return;
        }
        const double stood = std::chrono::duration<double>(steady_clock::now() - began).count();
        std::unique_lock<std::mutex> guard(lock);
        stream.reset();
        if (closing) return;
        closing = true;  // If it throws, that was the last word.
        pause = course.broke(status, stood, &told);
        closing = false;
    }

    const std::shared_ptr<Access> access;
    Course course;
    std::deque<Event> told;
    double pause = 0;
    steady_clock::time_point began;

    std::mutex lock;  // For what `close` touches too:
    std::condition_variable closed;
    bool closing = false;
    std::unique_ptr<Stream> stream;
};

Watch::Watch(std::shared_ptr<Access> access, api::WatchExpiryRequest request) : state_(std::make_unique<State>(std::move(access), std::move(request))) {}
Watch::Watch(Watch&&) noexcept = default;
Watch::~Watch() = default;

const std::string& Watch::resume_token() const { return state_->course.request.resume_token(); }

std::optional<Event> Watch::next() {
    while (true) {
        if (state_->is_closing()) return std::nullopt;
        if (!state_->told.empty()) {
            Event event = std::move(state_->told.front());
            state_->told.pop_front();
            return event;
        }
        if (!state_->stream && !state_->open()) return std::nullopt;
        state_->read();
    }
}

void Watch::close() {
    std::unique_lock<std::mutex> guard(state_->lock);
    state_->closing = true;
    if (state_->stream) state_->stream->cancel();
    state_->closed.notify_all();
}

}  // namespace session_sidecar
