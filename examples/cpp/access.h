// Where a client connects to, whom it trusts there, and as whom it comes.
#pragma once

#include <filesystem>
#include <memory>
#include <mutex>
#include <string>

#include "session_sidecar.h"

namespace session_sidecar {

class Access {
   public:
    // Throws std::invalid_argument: it names the option or the variable, and the path, and never what is in the file.
    explicit Access(const Options& options);

    // A connection, opened at its first call; `lone`: one that no other channel of this process shares. The files of TLS are read for it.
    std::shared_ptr<grpc::Channel> connect(bool lone = false);
    // Adds the token to a call that is about to begin. Its file is read again when it changed.
    void authorize(grpc::ClientContext* context);

    const std::string& target() const { return target_; }

   private:
    // A file, and what names it.
    struct File {
        std::string name, path;
        bool is_option = false;
        explicit operator bool() const { return !path.empty(); }
    };
    static File file(const char* option, const std::string& given);
    static std::string read(const File& file);
    static std::string pem(const File& file, const std::string& what);
    static std::string token(const File& file);
    grpc::SslCredentialsOptions read_tls() const;

    std::string target_;
    bool tls_ = false;
    File ca_, certificate_, key_, token_file_;
    std::mutex lock_;  // For what follows the files:
    grpc::SslCredentialsOptions pems_;
    std::string token_;
    std::pair<std::filesystem::file_time_type, std::uintmax_t> seen_;
};

}  // namespace session_sidecar
