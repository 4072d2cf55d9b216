package sessionsidecar;

import io.grpc.CallOptions;
import io.grpc.Channel;
import io.grpc.ClientCall;
import io.grpc.ClientInterceptor;
import io.grpc.ForwardingClientCall.SimpleForwardingClientCall;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.MethodDescriptor;
import io.grpc.netty.GrpcSslContexts;
import io.grpc.netty.NettyChannelBuilder;
import io.netty.channel.EventLoopGroup;
import io.netty.channel.epoll.EpollDomainSocketChannel;
import io.netty.channel.unix.DomainSocketAddress;
import io.netty.handler.ssl.SslContext;
import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.InvalidPathException;
import java.nio.file.Path;
import java.nio.file.attribute.BasicFileAttributes;
import java.security.cert.CertificateException;
import java.security.cert.CertificateFactory;
import java.security.cert.X509Certificate;
import java.util.EnumMap;
import java.util.List;
import java.util.Map;
import javax.net.ssl.SSLException;

/**
 * Where a client connects to, whom it trusts there, and as whom it comes. A file that is not given here is the one that a variable of the
 * command line names, if any: {@code SESSION_SIDECAR_TLS_CA_FILE} and so on. What is of no use is an {@link IllegalArgumentException} when
 * the client is made: it names the file, and never what is in it.
 */
public final class Access {
    private enum Setting {
        TLS_CA_FILE("tlsCaFile"),
        TLS_CERT_FILE("tlsCertFile"),
        TLS_KEY_FILE("tlsKeyFile"),
        TOKEN_FILE("tokenFile");

        final String option;
        final String variable = "SESSION_SIDECAR_" + name();

        Setting(String option) {
            this.option = option;
        }
    }

    private final String target;
    private final boolean tls;
    private final Map<Setting, String> given = new EnumMap<>(Setting.class);

    private Access(String target) {
        tls = target.startsWith("https://");
        this.target = target.startsWith("unix:") ? target : target.replaceFirst("^(https?|tcp)://", "").replaceFirst("/+$", "");
    }

    /**
     * @param target {@code host:port}, {@code unix:/path} or, for TLS, {@code https://host:port}; null: SESSION_SIDECAR_TARGET, else
     *     {@link Sidecar#DEFAULT_TARGET}. A Unix socket needs netty-transport-native-epoll.
     */
    public static Access to(String target) {
        String variable = System.getenv("SESSION_SIDECAR_TARGET");
        return new Access(target != null ? target : variable != null && !variable.isEmpty() ? variable : Sidecar.DEFAULT_TARGET);
    }

    /** With TLS: PEM of the authorities to trust in place of Java's own. */
    public Access tlsCaFile(String path) {
        return with(Setting.TLS_CA_FILE, path);
    }

    /** With TLS: PEM of the certificate to show. */
    public Access tlsCertFile(String path) {
        return with(Setting.TLS_CERT_FILE, path);
    }

    /** With TLS: PEM (PKCS #8) of the key of that certificate. */
    public Access tlsKeyFile(String path) {
        return with(Setting.TLS_KEY_FILE, path);
    }

    /** The first line of this file that is not empty is the bearer token of every call. It is read again when it changes. */
    public Access tokenFile(String path) {
        return with(Setting.TOKEN_FILE, path);
    }

    private Access with(Setting setting, String path) {
        if (path != null && !path.isEmpty()) given.put(setting, path);
        return this;
    }

    /** In gRPC's words. */
    String target() {
        return target;
    }

    /** A connection, opened at its first call. {@code threads}: an {@code EpollEventLoopGroup} for a Unix socket, else null. */
    public ManagedChannel channel(EventLoopGroup threads) {
        NettyChannelBuilder builder =
                threads == null
                        ? NettyChannelBuilder.forTarget(target)
                        : NettyChannelBuilder.forAddress(new DomainSocketAddress(target.replaceFirst("^unix:(//)?", "")))
                                .channelType(EpollDomainSocketChannel.class)
                                .eventLoopGroup(threads);
        if (tls) {
            builder.sslContext(sslContext());
        } else {
            builder.usePlaintext();
            for (Setting vain : given.keySet()) {
                if (vain != Setting.TOKEN_FILE) throw new IllegalArgumentException(vain.option + " is for TLS: give a target https://host:port");
            }
        }
        if (has(Setting.TOKEN_FILE)) builder.intercept(new Bearer());
        // The sidecar is beside us: no proxy is meant for it.
        return builder.proxyDetector(address -> null).build();
    }

    private SslContext sslContext() {
        try {
            var context = GrpcSslContexts.forClient();
            if (has(Setting.TLS_CA_FILE)) context.trustManager(certificates(Setting.TLS_CA_FILE));
            if (has(Setting.TLS_CERT_FILE) != has(Setting.TLS_KEY_FILE)) {
                Setting one = has(Setting.TLS_CERT_FILE) ? Setting.TLS_CERT_FILE : Setting.TLS_KEY_FILE;
                Setting other = one == Setting.TLS_CERT_FILE ? Setting.TLS_KEY_FILE : Setting.TLS_CERT_FILE;
                throw new IllegalArgumentException(name(one) + " is of no use without " + (given.containsKey(one) ? other.option : other.variable));
            }
            if (has(Setting.TLS_CERT_FILE)) {
                certificates(Setting.TLS_CERT_FILE);
                byte[] certificate = read(Setting.TLS_CERT_FILE), key = read(Setting.TLS_KEY_FILE);
                try {
                    context.keyManager(new ByteArrayInputStream(certificate), new ByteArrayInputStream(key));
                } catch (IllegalArgumentException none) {
                    throw without(Setting.TLS_KEY_FILE, "private key in PEM (PKCS #8)");
                }
            }
            return context.build();
        } catch (SSLException error) {
            throw new IllegalArgumentException(name(Setting.TLS_KEY_FILE) + " and the certificate: " + error.getMessage());
        }
    }

    private X509Certificate[] certificates(Setting setting) {
        try {
            var found = CertificateFactory.getInstance("X.509").generateCertificates(new ByteArrayInputStream(read(setting)));
            if (!found.isEmpty()) return found.toArray(X509Certificate[]::new);
        } catch (CertificateException none) {
            // The exception may show the content.
        }
        throw without(setting, "certificate in PEM");
    }

    /** What no header can hold is none. */
    private String token() {
        List<String> lines = new String(read(Setting.TOKEN_FILE), StandardCharsets.UTF_8).lines().map(String::strip).filter(line -> !line.isEmpty()).toList();
        if (lines.isEmpty() || !lines.get(0).matches("[ -~]+")) throw without(Setting.TOKEN_FILE, "token");
        return lines.get(0);
    }

    private byte[] read(Setting setting) {
        try {
            return Files.readAllBytes(Path.of(path(setting)));
        } catch (IOException | InvalidPathException error) {
            throw new IllegalArgumentException(name(setting) + " " + path(setting) + " cannot be read: " + error.getClass().getSimpleName());
        }
    }

    private IllegalArgumentException without(Setting setting, String what) {
        return new IllegalArgumentException(name(setting) + " " + path(setting) + " has no " + what);
    }

    private String path(Setting setting) {
        String path = given.getOrDefault(setting, System.getenv(setting.variable));
        return path == null ? "" : path;
    }

    private boolean has(Setting setting) {
        return !path(setting).isEmpty();
    }

    private String name(Setting setting) {
        return given.containsKey(setting) ? setting.option : setting.variable;
    }

    /** Shows the token with every call. While its file has none it stays what it was. */
    private final class Bearer implements ClientInterceptor {
        private static final Metadata.Key<String> AUTHORIZATION = Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER);
        private String token = token();
        private List<Object> seen = List.of();

        private synchronized String now() {
            try {
                var file = Files.readAttributes(Path.of(path(Setting.TOKEN_FILE)), BasicFileAttributes.class);
                List<Object> is = List.of(String.valueOf(file.fileKey()), file.size(), file.lastModifiedTime());
                if (is.equals(seen)) return token;
                token = token();
                seen = is;
            } catch (IOException | IllegalArgumentException none) {
                // The next call looks again.
            }
            return token;
        }

        @Override
        public <Q, R> ClientCall<Q, R> interceptCall(MethodDescriptor<Q, R> method, CallOptions options, Channel next) {
            return new SimpleForwardingClientCall<>(next.newCall(method, options)) {
                @Override
                public void start(Listener<R> listener, Metadata headers) {
                    headers.put(AUTHORIZATION, "Bearer " + now());
                    super.start(listener, headers);
                }
            };
        }
    }
}
