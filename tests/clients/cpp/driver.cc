// Does with the C++ client what the tests say: a command a line on standard input, an answer a line on standard output.

#include <iostream>
#include <map>
#include <optional>
#include <sstream>
#include <thread>

#include "session_sidecar.h"

using namespace session_sidecar;

namespace {

std::string told(const Answer& answer) {
    std::ostringstream line;
    if (const auto* live = std::get_if<Live>(&answer)) {
        line << "live " << api::SessionState_Name(live->status.state()) << " " << (live->status.expires_in().seconds() + 5) / 10 * 10;
        line << (live->counted ? " counted" : "") << (live->session ? " of " + live->session->subject() : "");
    } else if (const auto* ended = std::get_if<Ended>(&answer)) {
        line << "ended " << api::EndReason_Name(ended->end.reason()) << " " << api::Actor_Name(ended->end.actor()) << " " << ended->end.note();
        line << (ended->end.has_end_time() ? "" : " at no time") << (ended->session_ref.empty() ? " without ref" : "");
    } else if (std::holds_alternative<Unknown>(answer)) {
        line << "unknown";
    } else {
        line << "unreachable";
    }
    line << (allowed(answer) ? " allowed" : " refused");
    return line.str();
}

std::string told(const Event& event) {
    if (!event.begin_anew.empty()) return "begin anew " + event.begin_anew;
    const auto& message = event.message;
    switch (message.message_case()) {
        case api::WatchExpiryResponse::kSnapshot:
            return "snapshot " + message.snapshot().session().subject() + (message.snapshot().predecessor_ref().empty() ? "" : " goes on");
        case api::WatchExpiryResponse::kSnapshotEnd:
            return "snapshot end " + std::to_string(message.snapshot_end().snapshot_count());
        case api::WatchExpiryResponse::kWarning:
            return "warning " + message.warning().session().subject();
        case api::WatchExpiryResponse::kCleared:
            return "cleared " + message.cleared().session().subject();
        case api::WatchExpiryResponse::kEnded:
            return "ended " + message.ended().session().subject() + " " + api::EndReason_Name(message.ended().end().reason());
        case api::WatchExpiryResponse::kDraining:
            return "draining";
        default:
            return "?";
    }
}

class Driver {
   public:
    explicit Driver(Options options) : options_(std::move(options)) { sidecar_.emplace(options_); }

    // Another client, of these options: name=value.
    std::string take(std::istringstream& words) {
        Options options = options_;
        const std::map<std::string, std::string*> known = {{"target", &options.target},
                                                           {"tls_ca_file", &options.tls_ca_file},
                                                           {"tls_cert_file", &options.tls_cert_file},
                                                           {"tls_key_file", &options.tls_key_file},
                                                           {"token_file", &options.token_file}};
        for (std::string word; words >> word;) *known.at(word.substr(0, word.find('='))) = word.substr(word.find('=') + 1);
        sidecar_.emplace(options);
        return "client";
    }

    std::string carry_out(const std::string& verb, std::istringstream& words) {
        if (verb == "client") return take(words);
        std::string name, more;
        words >> name >> more;
        if (verb == "create") {
            api::CreateRequest request;
            request.set_subject(name);
            request.set_session_id(more);
            const auto created = sidecar_->create(request);
            ids_[name] = created.session_id();
            return "created " + api::SessionState_Name(created.session().status().state());
        }
        const std::string id = ids_.count(name) ? ids_[name] : name;
        if (verb == "touch") return told(sidecar_->touch(id, more == "background" ? api::ACTIVITY_BACKGROUND : api::ACTIVITY_USER));
        if (verb == "check") return told(sidecar_->check(id));
        if (verb == "extend") {
            api::ExtendRequest request;
            request.set_session_id(id);
            return "extended by " + std::to_string((sidecar_->extend(request).granted_duration().seconds() + 5) / 10 * 10);
        }
        if (verb == "rotate") {
            api::RotateRequest request;
            request.set_session_id(id);
            ids_[name] = sidecar_->rotate(request).session_id();
            return "rotated";
        }
        if (verb == "end") {
            api::EndRequest request;
            request.set_session_id(id);
            return "ended " + api::EndReason_Name(sidecar_->end(request).end().reason());
        }
        if (verb == "watch") {
            api::WatchExpiryRequest request;
            request.mutable_scope()->set_subject(name);
            request.set_include_initial_state(more.empty());
            request.set_resume_token(more);
            request.mutable_heartbeat_interval()->set_seconds(1);
            watch_.emplace(sidecar_->watch(request));
            return "watching";
        }
        if (verb == "next") {
            const auto event = watch_->next();
            return event ? told(*event) : "closed";
        }
        if (verb == "token") return watch_->resume_token();
        if (verb == "close") {
            // From another thread than the one that waits.
            std::thread reads([this] {
                while (watch_->next()) continue;
            });
            watch_->close();
            reads.join();
            return "closed";
        }
        return "what is " + verb + "?";
    }

   private:
    Options options_;
    std::optional<Sidecar> sidecar_;
    std::map<std::string, std::string> ids_;
    std::optional<Watch> watch_;
};

}  // namespace

int main(int count, char** arguments) {
    Options options;
    options.deadline = std::chrono::milliseconds(std::atoi(arguments[1]));
    options.fail = count > 2 ? Fail::kOpen : Fail::kClosed;
    Driver driver(options);
    for (std::string line; std::getline(std::cin, line);) {
        std::istringstream words(line);
        std::string verb;
        words >> verb;
        try {
            std::cout << driver.carry_out(verb, words) << std::endl;
        } catch (const SessionOverError& error) {
            std::cout << "over: " << told(error.answer) << std::endl;
        } catch (const UnreachableError&) {
            std::cout << "unreachable" << std::endl;
        } catch (const RefusedError& error) {
            std::cout << "refused " << error.reason << std::endl;
        } catch (const InvalidRequestError& error) {
            std::cout << "invalid " << (error.fields.empty() ? "" : error.fields.front()) << std::endl;
        } catch (const NotPermittedError&) {
            std::cout << "not permitted" << std::endl;
        } catch (const std::invalid_argument& error) {
            std::cout << error.what() << std::endl;
        }
    }
}
