package sessionsidecar;

import com.google.protobuf.Any;
import com.google.protobuf.Duration;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.protobuf.Timestamp;
import io.grpc.ConnectivityState;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.netty.channel.EventLoopGroup;
import io.netty.channel.epoll.EpollEventLoopGroup;
import io.netty.util.concurrent.DefaultThreadFactory;
import java.security.SecureRandom;
import java.time.Instant;
import java.util.ArrayDeque;
import java.util.Base64;
import java.util.Deque;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicLong;
import java.util.function.BiFunction;
import sessionsidecar.client.v1.Errors;
import sessionsidecar.client.v1.Errors.BadRequest;
import sessionsidecar.client.v1.Errors.ErrorInfo;
import sessionsidecar.client.v1.Errors.RetryInfo;
import sessionsidecar.v1.SessionServiceGrpc;
import sessionsidecar.v1.SessionServiceGrpc.SessionServiceBlockingStub;
import sessionsidecar.v1.SessionServiceOuterClass.Activity;
import sessionsidecar.v1.SessionServiceOuterClass.Actor;
import sessionsidecar.v1.SessionServiceOuterClass.CheckRequest;
import sessionsidecar.v1.SessionServiceOuterClass.CreateRequest;
import sessionsidecar.v1.SessionServiceOuterClass.CreateResponse;
import sessionsidecar.v1.SessionServiceOuterClass.EndReason;
import sessionsidecar.v1.SessionServiceOuterClass.EndRequest;
import sessionsidecar.v1.SessionServiceOuterClass.EndResponse;
import sessionsidecar.v1.SessionServiceOuterClass.ExtendRequest;
import sessionsidecar.v1.SessionServiceOuterClass.ExtendResponse;
import sessionsidecar.v1.SessionServiceOuterClass.RotateRequest;
import sessionsidecar.v1.SessionServiceOuterClass.RotateResponse;
import sessionsidecar.v1.SessionServiceOuterClass.Session;
import sessionsidecar.v1.SessionServiceOuterClass.SessionEnd;
import sessionsidecar.v1.SessionServiceOuterClass.SessionStatus;
import sessionsidecar.v1.SessionServiceOuterClass.TouchHints;
import sessionsidecar.v1.SessionServiceOuterClass.TouchRequest;

/**
 * A client of the sidecar beside this process. Make one and share it among threads. {@code touch} and {@code check} answer live, ended,
 * unknown or unreachable; the other verbs answer, or throw a {@link SidecarException}. Requests are the API's own messages, where each
 * field is explained; the tenant, and a {@code request_id} that makes repeating safe, are filled in.
 */
public final class Sidecar implements AutoCloseable {
    /** Where a sidecar listens unless it is told otherwise. */
    public static final String DEFAULT_TARGET = "127.0.0.1:50151";

    /** How long a call may take, connecting included. */
    public static final java.time.Duration DEADLINE = java.time.Duration.ofMillis(250);

    /** How often one call looks whether a sidecar that was away is back. */
    private static final long PROBE_NANOS = TimeUnit.SECONDS.toNanos(1);

    private static final System.Logger LOGGER = System.getLogger("session_sidecar");
    private static final SecureRandom RANDOM = new SecureRandom();

    /** What becomes of {@link Unreachable} answers. */
    public enum Fail {
        /** Nobody goes on while nobody knows. */
        CLOSED,
        /** Everybody goes on while nobody knows. What has ended stays ended. */
        OPEN
    }

    /** What is so of a session. */
    public sealed interface Answer {
        /** Whether the request may go on. */
        boolean allowed();
    }

    /** It lives. {@code counted}: whether this touch was activity. {@code session}: all that is known of it, if {@code check} asked. */
    public record Live(SessionStatus status, boolean counted, Session session) implements Answer {
        @Override
        public boolean allowed() {
            return true;
        }
    }

    /** It has ended: why, by whom and when. */
    public record Ended(String sessionRef, SessionEnd end) implements Answer {
        @Override
        public boolean allowed() {
            return false;
        }

        /** The reason in one word, such as IDLE_TIMEOUT. */
        public String reason() {
            return end.getReason().name().replaceFirst("^END_REASON_", "");
        }

        @Override
        public String toString() {
            return "ended " + sessionRef + ": " + reason();
        }
    }

    /** Nobody knows of it: it ended long ago, or never was, or was lost with a sidecar that only had memory. */
    public record Unknown(String sessionRef, boolean mayHaveEnded) implements Answer {
        @Override
        public boolean allowed() {
            return false;
        }
    }

    /** Nobody can know now: no answer in time, or the sidecar says that it cannot know. */
    public record Unreachable(boolean allowed, String code, String message, java.time.Duration retryAfter) implements Answer {}

    private final String target;
    private final String tenant;
    private final Fail fail;
    private final java.time.Duration deadline;
    private final EventLoopGroup socketThreads;
    private final ManagedChannel channel;
    private final SessionServiceBlockingStub stub;
    private final AtomicBoolean away = new AtomicBoolean();
    private final AtomicLong probed = new AtomicLong(System.nanoTime() - PROBE_NANOS);

    /** A client of SESSION_SIDECAR_TARGET, else of 127.0.0.1:50151, with what the other variables say, that fails closed. */
    public Sidecar() {
        this(Access.to(null), "", Fail.CLOSED, DEADLINE);
    }

    /**
     * @param access where the sidecar is, and the files of TLS and of a token.
     * @param tenant of all sessions; most have "".
     */
    public Sidecar(Access access, String tenant, Fail fail, java.time.Duration deadline) {
        this.target = access.target();
        this.tenant = tenant;
        this.fail = fail;
        this.deadline = deadline;
        this.socketThreads =
                this.target.startsWith("unix:") ? new EpollEventLoopGroup(1, new DefaultThreadFactory("session-sidecar", true)) : null;
        this.channel = access.channel(socketThreads);
        this.stub = SessionServiceGrpc.newBlockingStub(channel);
    }

    /** Connects, and loads what the first call needs, so that no person waits for that: 2 s at most. Answers whether the sidecar did. */
    public boolean warmUp() {
        try {
            CheckRequest nobody = CheckRequest.newBuilder().setTenant(tenant).setSessionId("nobody-has-this-session-id").build();
            return stub.withWaitForReady().withDeadlineAfter(2, TimeUnit.SECONDS).check(nobody).hasSession();
        } catch (StatusRuntimeException error) {
            heard(Failure.of(error));
            return false;
        }
    }

    /** Whether {@code touch} and {@code check} allow while nobody knows. */
    public boolean failsOpen() {
        return fail == Fail.OPEN;
    }

    /** Starts a session at login, or adopts one that runs already ({@code authenticated_ago}, {@code idle_for}). */
    public CreateResponse create(CreateRequest.Builder request) {
        if (request.getRequestId().isEmpty()) request.setRequestId(requestId());
        return command(SessionServiceBlockingStub::create, request.setTenant(tenant).build());
    }

    /** Reports that the person did something, and answers whether the session lives. */
    public Answer touch(String sessionId, Activity activity, TouchHints hints) {
        var request = TouchRequest.newBuilder().setTenant(tenant).setSessionId(sessionId).setActivity(activity).setHints(hints).build();
        try {
            var answer = call(SessionServiceBlockingStub::touch, request);
            return new Live(answer.getStatus(), answer.getCounted(), null);
        } catch (Failure failure) {
            return failure.answer(failsOpen());
        }
    }

    /** What a session is. Never extends it. */
    public Answer check(String sessionId) {
        try {
            var request = CheckRequest.newBuilder().setTenant(tenant).setSessionId(sessionId).build();
            Session session = call(SessionServiceBlockingStub::check, request).getSession();
            SessionStatus status = session.getStatus();
            return switch (status.getState()) {
                case SESSION_STATE_ACTIVE, SESSION_STATE_EXPIRING -> new Live(status, false, session);
                case SESSION_STATE_ENDED -> new Ended(status.getSessionRef(), session.getEnd());
                default -> new Unknown(status.getSessionRef(), status.getMayHaveEnded());
            };
        } catch (Failure failure) {
            return failure.answer(failsOpen());
        }
    }

    /** The person pressed "stay". */
    public ExtendResponse extend(ExtendRequest.Builder request) {
        if (request.getRequestId().isEmpty()) request.setRequestId(requestId());
        return command(SessionServiceBlockingStub::extend, request.setTenant(tenant).build());
    }

    /** Gives a session a new id; with {@code authenticated_ago} both deadlines begin anew. */
    public RotateResponse rotate(RotateRequest.Builder request) {
        if (request.getRequestId().isEmpty()) request.setRequestId(requestId());
        return command(SessionServiceBlockingStub::rotate, request.setTenant(tenant).build());
    }

    /** Ends a session now. One that ended before is answered with its first end. */
    public EndResponse end(EndRequest.Builder request) {
        return command(SessionServiceBlockingStub::end, request.setTenant(tenant).setRequestId(requestId()).build());
    }

    /** The same, without waiting for it: where nobody could do anything about a failure. */
    public void endSoon(EndRequest.Builder request) {
        SessionServiceGrpc.newFutureStub(channel).withDeadlineAfter(deadline.toMillis(), TimeUnit.MILLISECONDS)
                .end(request.setTenant(tenant).setRequestId(requestId()).build());
    }

    /** Closes the connection, after what is under way. */
    @Override
    public void close() {
        try {
            if (!channel.shutdown().awaitTermination(1, TimeUnit.SECONDS)) channel.shutdownNow();
        } catch (InterruptedException interrupted) {
            channel.shutdownNow();
            Thread.currentThread().interrupt();
        }
        if (socketThreads != null) socketThreads.shutdownGracefully(0, 1, TimeUnit.SECONDS);
    }

    /** A duration, as the API's messages have them. */
    public static Duration duration(long millis) {
        return Duration.newBuilder().setSeconds(millis / 1000).setNanos((int) (millis % 1000) * 1_000_000).build();
    }

    // ---- How a call is made ----

    private static String requestId() {
        byte[] bytes = new byte[18];
        RANDOM.nextBytes(bytes);
        return Base64.getUrlEncoder().encodeToString(bytes);
    }

    private <Q, R> R command(BiFunction<SessionServiceBlockingStub, Q, R> verb, Q request) {
        try {
            return call(verb, request);
        } catch (Failure failure) {
            Answer answer = failure.answer(failsOpen());
            throw answer instanceof Unreachable unreachable ? new SidecarException.Away(unreachable) : new SidecarException.SessionOver(answer);
        }
    }

    /** Makes a call, and once or twice more if its connection was lost: all of them may be made again. */
    private <Q, R> R call(BiFunction<SessionServiceBlockingStub, Q, R> verb, Q request) throws Failure {
        long until = System.nanoTime() + deadline.toNanos();
        // A connection that broke may be taken for whole for a moment more. Of a sidecar that is away nobody expects an answer.
        Deque<Integer> pauses = new ArrayDeque<>(away.get() ? List.of() : List.of(5, 20));
        if (away.get()) reconnect();
        while (true) {
            try {
                R answer = verb.apply(stub.withDeadlineAfter(Math.max(until - System.nanoTime(), 1_000_000), TimeUnit.NANOSECONDS), request);
                heard(null);
                return answer;
            } catch (StatusRuntimeException error) {
                Failure failure = Failure.of(error);
                if (failure.lostConnection() && !pauses.isEmpty() && until - System.nanoTime() > pauses.peek() * 1_000_000L) {
                    sleep(pauses.pop());
                    continue;
                }
                heard(failure);
                throw failure;
            }
        }
    }

    /** Gives a sidecar that was away a moment to be found again. By itself gRPC looks less and less often, every two minutes at last. */
    private void reconnect() {
        long now = System.nanoTime(), last = probed.get();
        if (now - last < PROBE_NANOS || !probed.compareAndSet(last, now)) return;
        channel.resetConnectBackoff();
        for (int look = 0; look < 10 && channel.getState(true) != ConnectivityState.READY; look++) sleep(5);
    }

    private static void sleep(int millis) {
        try {
            Thread.sleep(millis);
        } catch (InterruptedException interrupted) {
            Thread.currentThread().interrupt();
        }
    }

    /** Says once that the sidecar is away, and once that it is back. Refusals are answers. */
    private void heard(Failure failure) {
        boolean gone = failure != null && (failure.code == Status.Code.UNAVAILABLE || failure.code == Status.Code.DEADLINE_EXCEEDED);
        if (!away.compareAndSet(!gone, gone)) return;
        LOGGER.log(
                System.Logger.Level.WARNING,
                gone ? "session-sidecar at {0} does not answer: {1}: {2}" : "session-sidecar at {0} answers again",
                target, gone ? failure.code : "", gone ? failure.getMessage() : "");
    }

    /** An error of the wire, decoded. */
    private static final class Failure extends Exception {
        private static final long serialVersionUID = 1;
        private static final Metadata.Key<byte[]> DETAILS = Metadata.Key.of("grpc-status-details-bin", Metadata.BINARY_BYTE_MARSHALLER);
        final Status.Code code;
        final transient ErrorInfo info;
        final transient List<String> fields;
        final transient java.time.Duration retryAfter;

        private Failure(Status status, ErrorInfo info, List<String> fields, java.time.Duration retryAfter) {
            super((status.getDescription() == null ? "" : status.getDescription()) + because(status.getCause()));
            this.code = status.getCode();
            this.info = info;
            this.fields = fields;
            this.retryAfter = retryAfter;
        }

        /** Why there is no connection, such as a certificate that is not trusted. */
        private static String because(Throwable cause) {
            if (cause == null) return "";
            return cause.getCause() == null ? ": " + cause.getMessage() : because(cause.getCause());
        }

        static Failure of(StatusRuntimeException error) {
            ErrorInfo info = ErrorInfo.getDefaultInstance();
            List<String> fields = List.of();
            java.time.Duration retryAfter = null;
            byte[] told = error.getTrailers() == null ? null : error.getTrailers().get(DETAILS);
            try {
                for (Any detail : told == null ? List.<Any>of() : Errors.Status.parseFrom(told).getDetailsList()) {
                    switch (detail.getTypeUrl().replaceFirst(".*[.]", "")) {
                        case "ErrorInfo" -> info = ErrorInfo.parseFrom(detail.getValue());
                        case "BadRequest" ->
                                fields = BadRequest.parseFrom(detail.getValue()).getFieldViolationsList().stream().map(BadRequest.FieldViolation::getField).toList();
                        case "RetryInfo" -> {
                            Duration delay = RetryInfo.parseFrom(detail.getValue()).getRetryDelay();
                            retryAfter = java.time.Duration.ofSeconds(delay.getSeconds(), delay.getNanos());
                        }
                        default -> {}
                    }
                }
            } catch (InvalidProtocolBufferException garbled) {
                // Then the code has to do.
            }
            return new Failure(error.getStatus(), info, fields, retryAfter);
        }

        /** Whether it was the connection that failed, not the sidecar that said so. */
        boolean lostConnection() {
            return code == Status.Code.UNAVAILABLE && info.getReason().isEmpty();
        }

        /** What it means for a request; throws if it means nothing for it. */
        Answer answer(boolean failsOpen) {
            Map<String, String> told = info.getMetadataMap();
            String ref = told.getOrDefault("session_ref", "");
            switch (info.getReason()) {
                case "SESSION_ENDED":
                    return new Ended(ref, end(told));
                case "SESSION_UNKNOWN":
                    return new Unknown(ref, "true".equals(told.get("may_have_ended")));
                default:
            }
            switch (code) {
                case INVALID_ARGUMENT:
                    throw new SidecarException.InvalidRequest(fields, getMessage());
                case PERMISSION_DENIED, UNAUTHENTICATED, UNIMPLEMENTED:
                    throw new SidecarException.NotPermitted(code.name(), getMessage());
                case RESOURCE_EXHAUSTED:
                    if (info.getReason().isEmpty()) break;
                    throw new SidecarException.Refused(info.getReason(), getMessage());
                case FAILED_PRECONDITION, NOT_FOUND, ALREADY_EXISTS, OUT_OF_RANGE:
                    throw new SidecarException.Refused(info.getReason().isEmpty() ? code.name() : info.getReason(), getMessage());
                default:
            }
            return new Unreachable(failsOpen, code.name(), getMessage(), retryAfter);
        }

        private static SessionEnd end(Map<String, String> told) {
            var end = SessionEnd.newBuilder().setActorId(told.getOrDefault("actor_id", "")).setNote(told.getOrDefault("note", ""))
                    .setSuccessorRef(told.getOrDefault("successor_ref", ""));
            for (EndReason reason : EndReason.values()) if (reason.name().equals("END_REASON_" + told.get("reason"))) end.setReason(reason);
            for (Actor actor : Actor.values()) if (actor.name().equals("ACTOR_" + told.get("actor"))) end.setActor(actor);
            if (told.containsKey("end_time")) {
                Instant time = Instant.parse(told.get("end_time"));
                end.setEndTime(Timestamp.newBuilder().setSeconds(time.getEpochSecond()).setNanos(time.getNano()));
            }
            return end.build();
        }
    }
}
