package sessionsidecar;

import jakarta.servlet.SessionCookieConfig;
import jakarta.servlet.http.Cookie;
import jakarta.servlet.http.HttpServletRequest;
import jakarta.servlet.http.HttpServletResponse;
import java.io.IOException;
import java.net.URI;
import java.time.Instant;
import java.util.Map;
import sessionsidecar.Sidecar.Answer;
import sessionsidecar.Sidecar.Ended;
import sessionsidecar.Sidecar.Unknown;
import sessionsidecar.Sidecar.Unreachable;
import sessionsidecar.v1.SessionServiceOuterClass.EndReason;
import sessionsidecar.v1.SessionServiceOuterClass.SessionEnd;
import sessionsidecar.v1.SessionServiceOuterClass.TouchHints;

/** What the filter reads of a request, and how people and scripts are refused: in the words and the JSON of the sidecar's own HTTP door. */
final class Refusal {
    private static final Map<EndReason, String> WORDS =
            Map.of(
                    EndReason.END_REASON_IDLE_TIMEOUT, "by inactivity",
                    EndReason.END_REASON_ABSOLUTE_TIMEOUT, "because the longest time since login had passed",
                    EndReason.END_REASON_BROWSER_CLOSED, "because its browser was closed or out of reach",
                    EndReason.END_REASON_LOGOUT, "by logout",
                    EndReason.END_REASON_REVOKED, "because it was revoked",
                    EndReason.END_REASON_SUPERSEDED, "because a newer session of the same person took its place");

    private Refusal() {}

    /** What the policy's rules look at. What the sidecar would refuse is left out or cut, for it is whatever somebody sent. */
    static TouchHints hints(HttpServletRequest request) {
        return TouchHints.newBuilder().setHost(told(request.getServerName(), 255)).setMethod(told(request.getMethod(), 32))
                .setPath(told(request.getRequestURI().substring(0, Math.min(2048, request.getRequestURI().length())), 2048))
                .setSecFetchUser(told(request.getHeader("Sec-Fetch-User"), 64)).setSecFetchMode(told(request.getHeader("Sec-Fetch-Mode"), 64))
                .setSecFetchDest(told(request.getHeader("Sec-Fetch-Dest"), 64)).setSecPurpose(told(request.getHeader("Sec-Purpose"), 64)).build();
    }

    private static String told(String value, int longest) {
        return value != null && value.length() <= longest && value.matches("[ -~]*") ? value : "";
    }

    /** Whether a person will look at the answer, and not a script. */
    private static boolean isNavigation(HttpServletRequest request) {
        String mode = request.getHeader("Sec-Fetch-Mode"), accepted = request.getHeader("Accept");
        return mode != null ? mode.equals("navigate") : accepted != null && accepted.contains("text/html");
    }

    /** The session's cookie, as it is taken back. */
    static Cookie takenBack(HttpServletRequest request) {
        SessionCookieConfig told = request.getServletContext().getSessionCookieConfig();
        var cookie = new Cookie(told.getName() == null ? "JSESSIONID" : told.getName(), "");
        String context = request.getContextPath();
        cookie.setPath(told.getPath() != null ? told.getPath() : context.isEmpty() ? "/" : context);
        if (told.getDomain() != null) cookie.setDomain(told.getDomain());
        cookie.setHttpOnly(true);
        cookie.setSecure(told.isSecure() || request.isSecure());
        cookie.setMaxAge(0);
        return cookie;
    }

    /** The path of a URL that may be a path already. */
    static String path(String url) {
        return URI.create(url).getPath();
    }

    /** To the login page, which is told why; a script gets 401 with the end. */
    static void over(HttpServletRequest request, HttpServletResponse response, Answer answer, String loginUrl) throws IOException {
        String ref = answer instanceof Ended ended ? ended.sessionRef() : ((Unknown) answer).sessionRef();
        SessionEnd end = answer instanceof Ended ended ? ended.end() : SessionEnd.getDefaultInstance();
        String reason = answer instanceof Ended ended && end.getReason() != EndReason.END_REASON_UNSPECIFIED ? ended.reason() : null;
        if (isNavigation(request)) {
            response.setHeader("Cache-Control", "no-store");
            response.setHeader("Location", reason == null ? loginUrl : loginUrl + (loginUrl.contains("?") ? "&" : "?") + "reason=" + reason);
            response.setStatus(HttpServletResponse.SC_SEE_OTHER);
            return;
        }
        String words = WORDS.getOrDefault(end.getReason(), "");
        String message = answer instanceof Ended ? "the session has ended " + words : "the session is not known: it is over";
        String more = ",\"login_url\":" + quoted(loginUrl);
        if (!ref.isEmpty()) more += ",\"session_ref\":" + quoted(ref);
        if (reason != null) {
            more += ",\"end\":{\"reason\":" + quoted(reason) + ",\"message\":" + quoted(words);
            if (end.hasEndTime()) more += ",\"end_time\":" + quoted(Instant.ofEpochMilli(end.getEndTime().getSeconds() * 1000 + end.getEndTime().getNanos() / 1_000_000).toString());
            more += "}";
        }
        json(response, 401, answer instanceof Ended ? "SESSION_ENDED" : "SESSION_UNKNOWN", message.strip() + "; send the person to the login page", more);
    }

    /** Nobody can know now. */
    static void unavailable(HttpServletRequest request, HttpServletResponse response, Unreachable away) throws IOException {
        String text = "For a moment it cannot be told who is logged in. Please try again.";
        response.setHeader("Retry-After", String.valueOf(away.retryAfter() == null ? 1 : Math.max(1, (away.retryAfter().toMillis() + 999) / 1000)));
        if (isNavigation(request)) {
            response.setStatus(HttpServletResponse.SC_SERVICE_UNAVAILABLE);
            response.setHeader("Cache-Control", "no-store");
            response.setContentType("text/plain; charset=utf-8");
            response.getWriter().println(text);
        } else {
            json(response, 503, "UNAVAILABLE", text, "");
        }
    }

    private static void json(HttpServletResponse response, int status, String error, String message, String more) throws IOException {
        response.setStatus(status);
        response.setHeader("Cache-Control", "no-store");
        response.setContentType("application/json");
        response.getWriter().print("{\"error\":" + quoted(error) + ",\"message\":" + quoted(message) + more + "}");
    }

    private static String quoted(String text) {
        var quoted = new StringBuilder("\"");
        for (char letter : text.toCharArray()) {
            if (letter == '"' || letter == '\\' || letter < ' ' || letter == '<') {
                quoted.append(String.format("\\u%04x", (int) letter));
            } else {
                quoted.append(letter);
            }
        }
        return quoted.append('"').toString();
    }
}
