package sessionsidecar;

import java.util.List;

/** Whatever a command of {@link Sidecar} may fail with. No message ever holds a session id. */
public abstract sealed class SidecarException extends RuntimeException {
    private static final long serialVersionUID = 1;

    private SidecarException(String message) {
        // Without a cause: what it tells is in here, and a cause might tell more.
        super(message);
    }

    /** A command on a session that is not live; {@link #answer} is an {@code Ended} or an {@code Unknown}. */
    public static final class SessionOver extends SidecarException {
        private static final long serialVersionUID = 1;
        /** What it is instead. */
        public final transient Sidecar.Answer answer;

        SessionOver(Sidecar.Answer answer) {
            super("the session is over: " + answer);
            this.answer = answer;
        }
    }

    /** Nobody can know now. The command may have been carried out; repeating it with the same {@code request_id} is safe. */
    public static final class Away extends SidecarException {
        private static final long serialVersionUID = 1;
        /** What is known of it. */
        public final transient Sidecar.Unreachable answer;

        Away(Sidecar.Unreachable answer) {
            super("session-sidecar does not answer: " + answer.code() + ": " + answer.message());
            this.answer = answer;
        }
    }

    /** The policy or the state refuses. */
    public static final class Refused extends SidecarException {
        private static final long serialVersionUID = 1;
        /** One word, such as SESSION_EXISTS, SUBJECT_CAP, EXTENSION_LIMIT, READ_ONLY_SESSION. */
        public final String reason;

        Refused(String reason, String message) {
            super(reason + ": " + message);
            this.reason = reason;
        }
    }

    /** A request that can never succeed: a mistake in the program, or an id out of a cookie that cannot be one. */
    public static final class InvalidRequest extends SidecarException {
        private static final long serialVersionUID = 1;
        /** The fields that are wrong, named as in the .proto. */
        public final transient List<String> fields;

        InvalidRequest(List<String> fields, String message) {
            super(message);
            this.fields = fields;
        }
    }

    /** This listener does not serve this verb or tenant to this caller, or is no sidecar: a mistake in the configuration. */
    public static final class NotPermitted extends SidecarException {
        private static final long serialVersionUID = 1;

        NotPermitted(String code, String message) {
            super(code + ": " + message);
        }
    }
}
