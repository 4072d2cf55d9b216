#include "access.h"

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <sstream>
#include <stdexcept>

namespace session_sidecar {

namespace {

constexpr const char* kDefaultTarget = "127.0.0.1:50151";

std::string variable(const std::string& name) {
    const char* value = std::getenv(name.c_str());
    return value ? value : "";
}

// tls_ca_file is SESSION_SIDECAR_TLS_CA_FILE.
std::string variable_of(const std::string& option) {
    std::string name = "SESSION_SIDECAR_";
    std::transform(option.begin(), option.end(), std::back_inserter(name), [](unsigned char letter) { return std::toupper(letter); });
    return name;
}

}  // namespace

Access::Access(const Options& options) {
    std::string target = !options.target.empty() ? options.target : variable("SESSION_SIDECAR_TARGET");
    if (target.empty()) target = kDefaultTarget;
    tls_ = target.rfind("https://", 0) == 0;
    if (target.rfind("unix:", 0) != 0) {
        for (const std::string scheme : {"https://", "http://", "tcp://"}) {
            if (target.rfind(scheme, 0) == 0) target.erase(0, scheme.size());
        }
        while (!target.empty() && target.back() == '/') target.pop_back();
    }
    target_ = target;
    ca_ = file("tls_ca_file", options.tls_ca_file);
    certificate_ = file("tls_cert_file", options.tls_cert_file);
    key_ = file("tls_key_file", options.tls_key_file);
    token_file_ = file("token_file", options.token_file);
    if (tls_) {
        if (!certificate_ != !key_) {
            const auto& [has, lacks] = certificate_ ? std::pair(certificate_, "tls_key_file") : std::pair(key_, "tls_cert_file");
            throw std::invalid_argument(has.name + " is of no use without " + (has.is_option ? lacks : variable_of(lacks)));
        }
        pems_ = read_tls();
    } else {
        for (const File& vain : {ca_, certificate_, key_}) {
            if (vain.is_option) throw std::invalid_argument(vain.name + " is for TLS: give a target https://host:port");
        }
    }
    if (token_file_) token_ = token(token_file_);
}

std::shared_ptr<grpc::Channel> Access::connect(bool lone) {
    grpc::ChannelArguments arguments;
    // The sidecar is beside us: http_proxy is not meant, and it is back soon after a restart.
    arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
    arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
    arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 1000);
    arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 1000);
    // Else a watch whose connection is silent would get the same one again.
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, lone ? 1 : 0);
    if (!tls_) return grpc::CreateCustomChannel(target_, grpc::InsecureChannelCredentials(), arguments);
    std::unique_lock<std::mutex> guard(lock_);
    try {
        pems_ = read_tls();
    } catch (const std::invalid_argument&) {
        // They are just being replaced: those of before.
    }
    return grpc::CreateCustomChannel(target_, grpc::SslCredentials(pems_), arguments);
}

void Access::authorize(grpc::ClientContext* context) {
    if (!token_file_) return;
    std::unique_lock<std::mutex> guard(lock_);
    try {
        const std::pair now(std::filesystem::last_write_time(token_file_.path), std::filesystem::file_size(token_file_.path));
        if (now != seen_) {
            token_ = token(token_file_);
            seen_ = now;
        }
    } catch (const std::exception&) {
        // While there is none it stays what it was. The next call looks again.
    }
    // Call credentials would be refused in clear text.
    context->AddMetadata("authorization", "Bearer " + token_);
}

Access::File Access::file(const char* option, const std::string& given) {
    if (!given.empty()) return {option, given, true};
    return {variable_of(option), variable(variable_of(option)), false};
}

std::string Access::read(const File& file) {
    std::ifstream stream(file.path, std::ios::binary);
    std::ostringstream content;
    // Of an empty file this is a failure too, and of a folder.
    if (!stream || !(content << stream.rdbuf())) throw std::invalid_argument(file.name + " " + file.path + " cannot be read, or is empty");
    return content.str();
}

std::string Access::pem(const File& file, const std::string& what) {
    if (!file) return "";
    const std::string content = read(file);
    const auto begins = content.find("-----BEGIN "), is = content.find(what + "-----"), ends = content.find("-----END ");
    if (begins < is && is < ends && ends != std::string::npos) return content;
    throw std::invalid_argument(file.name + " " + file.path + " has no " + what + " in PEM");
}

grpc::SslCredentialsOptions Access::read_tls() const {
    grpc::SslCredentialsOptions pems;
    pems.pem_root_certs = pem(ca_, "CERTIFICATE");
    pems.pem_cert_chain = pem(certificate_, "CERTIFICATE");
    pems.pem_private_key = pem(key_, "PRIVATE KEY");
    return pems;
}

std::string Access::token(const File& file) {
    std::istringstream lines(read(file));
    for (std::string line; std::getline(lines, line);) {
        const auto first = line.find_first_not_of(" \t\r"), last = line.find_last_not_of(" \t\r");
        if (first == std::string::npos) continue;
        line = line.substr(first, last - first + 1);
        // What no header can hold is none.
        if (std::all_of(line.begin(), line.end(), [](char letter) { return letter >= ' ' && letter <= '~'; })) return line;
        break;
    }
    throw std::invalid_argument(file.name + " " + file.path + " has no token");
}

}  // namespace session_sidecar
