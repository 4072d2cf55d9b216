// An error of the wire, decoded. Not for callers.
#pragma once

#include "session_sidecar.h"

namespace session_sidecar {

struct Failure {
    explicit Failure(const grpc::Status& status);

    grpc::Status status;
    std::string reason;  // ErrorInfo's.
    std::map<std::string, std::string> told;
    std::vector<std::string> fields;
    std::optional<std::chrono::milliseconds> retry_after;

    // Whether it was the connection that failed, not the sidecar that said so.
    bool lost_connection() const;
    // What it means for a request; throws if it means nothing for it.
    Answer answer(bool allowed) const;
    // Throws if no repeating can mend it.
    void raise_if_hopeless() const;
};

}  // namespace session_sidecar
