package sessionsidecar;

import jakarta.servlet.DispatcherType;
import jakarta.servlet.Filter;
import jakarta.servlet.FilterChain;
import jakarta.servlet.ServletContext;
import jakarta.servlet.ServletException;
import jakarta.servlet.ServletRequest;
import jakarta.servlet.ServletResponse;
import jakarta.servlet.http.HttpServletRequest;
import jakarta.servlet.http.HttpServletRequestWrapper;
import jakarta.servlet.http.HttpServletResponse;
import jakarta.servlet.http.HttpSession;
import jakarta.servlet.http.HttpSessionEvent;
import jakarta.servlet.http.HttpSessionIdListener;
import jakarta.servlet.http.HttpSessionListener;
import java.io.IOException;
import java.io.Serializable;
import java.security.Principal;
import java.util.EnumSet;
import java.util.function.Function;
import java.util.function.Predicate;
import sessionsidecar.Sidecar.Answer;
import sessionsidecar.Sidecar.Ended;
import sessionsidecar.Sidecar.Live;
import sessionsidecar.Sidecar.Unknown;
import sessionsidecar.Sidecar.Unreachable;
import sessionsidecar.v1.SessionServiceOuterClass.Activity;
import sessionsidecar.v1.SessionServiceOuterClass.Actor;
import sessionsidecar.v1.SessionServiceOuterClass.CreateRequest;
import sessionsidecar.v1.SessionServiceOuterClass.EndReason;
import sessionsidecar.v1.SessionServiceOuterClass.EndRequest;
import sessionsidecar.v1.SessionServiceOuterClass.RotateRequest;
import sessionsidecar.v1.SessionServiceOuterClass.SessionEnd;
import sessionsidecar.v1.SessionServiceOuterClass.SessionStatus;

/**
 * Asks the sidecar about each request of somebody who is logged in, and tells it of logins, new ids and ends of the container's sessions.
 * The sidecar's id of a session is the container's own, the value of the cookie. It stands behind whatever says who is logged in.
 */
public final class SessionSidecarFilter implements Filter, HttpSessionListener, HttpSessionIdListener {
    /** The request's attribute with the {@link SessionStatus} of a live session: {@code getExpiresIn()} says how long it still lives. */
    public static final String STATUS = "sessionsidecar.status";

    /** The request's attribute with the {@link Ended} or {@link Unknown} session of a request that goes on as a stranger's: the login page's. */
    public static final String OVER = "sessionsidecar.over";

    private static final String TRACKED = "sessionsidecar.tracked";
    private static final String RENAMED = "sessionsidecar.renamed";
    /** How old what the container's session remembers of the last activity may get, in ms: some containers copy each change to others. */
    private static final long SEEN_EVERY = 30_000;

    private static final System.Logger LOGGER = System.getLogger("session_sidecar");
    /** The session of the request that this thread serves. */
    private static final ThreadLocal<HttpSession> SERVED = new ThreadLocal<>();

    /** What the container's session remembers: the id under which the sidecar knows it, whose it is, when its person logged in and was last active. */
    private record Tracked(String id, String subject, long login, long seen) implements Serializable {
        Tracked named(String newId) {
            return new Tracked(newId, subject, login, seen);
        }

        Tracked seenAt(long now) {
            return new Tracked(id, subject, login, now);
        }
    }

    private final Sidecar sidecar;
    private final String loginUrl;
    private Function<HttpServletRequest, String> subject = HttpServletRequest::getRemoteUser;
    private Predicate<HttpServletRequest> background = request -> false;
    private String policy = "";
    private boolean adopts = true;

    /** @param loginUrl where a person whose session is over is sent, as the browser sees it: {@code /shop/login}. */
    public SessionSidecarFilter(Sidecar sidecar, String loginUrl) {
        this.sidecar = sidecar;
        this.loginUrl = loginUrl;
    }

    /** Who is logged in, null for nobody. Default: {@code getRemoteUser()}. */
    public SessionSidecarFilter subject(Function<HttpServletRequest, String> named) {
        subject = named;
        return this;
    }

    /** Which requests are never activity: polls, and whatever a page asks for by itself. Default: what the policy's rules say. */
    public SessionSidecarFilter background(Predicate<HttpServletRequest> polls) {
        background = polls;
        return this;
    }

    /** The policy of sessions that begin here. Default: the sidecar's default. */
    public SessionSidecarFilter policy(String name) {
        policy = name;
        return this;
    }

    /** Whether a session that the sidecar does not know is adopted, as old and as idle as it is (default), or its person logs in again. */
    public SessionSidecarFilter adopts(boolean does) {
        adopts = does;
        return this;
    }

    /** Puts it before requests of these patterns: from a {@code ServletContextListener}, or Spring Boot's {@code ServletContextInitializer}. */
    public void register(ServletContext context, String... urlPatterns) {
        sidecar.warmUp();
        context.setAttribute(SessionSidecarFilter.class.getName(), this);
        context.addListener(this);
        var registered = context.addFilter("session-sidecar", this);
        registered.setAsyncSupported(true);
        registered.addMappingForUrlPatterns(EnumSet.of(DispatcherType.REQUEST), true, urlPatterns);
    }

    /**
     * The person of this request has just authenticated: gives the session a new id and begins both limits anew. A first login is noticed
     * without it, at the end of its request; with it, it is refused here and now.
     *
     * @throws SidecarException if the policy refuses it, or nobody can know and the client fails closed. Then nobody is logged in.
     */
    public static void authenticated(HttpServletRequest request) {
        var filter = (SessionSidecarFilter) request.getServletContext().getAttribute(SessionSidecarFilter.class.getName());
        String who = filter.subject.apply(request);
        if (who == null) throw new IllegalStateException("nobody is logged in by this request: call authenticated() after the login");
        filter.begin(request, request.getSession(), who);
    }

    @Override
    public void doFilter(ServletRequest asked, ServletResponse answered, FilterChain chain) throws IOException, ServletException {
        var request = (HttpServletRequest) asked;
        var response = (HttpServletResponse) answered;
        HttpSession session = request.getSession(false);
        SERVED.set(session);
        try {
            Answer answer;
            try {
                answer = session == null ? former(request) : judged(request, session);
            } catch (SidecarException.Refused refused) { // READ_ONLY_SESSION, or more sessions than its person may have.
                response.sendError(HttpServletResponse.SC_FORBIDDEN, refused.getMessage());
                return;
            } catch (IllegalStateException invalid) { // A request beside this one has just ended the session.
                if (request.getSession(false) != null) throw invalid;
                answer = former(request);
            }
            if (answer instanceof Live live) request.setAttribute(STATUS, live.status());
            if (answer instanceof Unreachable away && !away.allowed()) {
                Refusal.unavailable(request, response, away);
            } else if (answer instanceof Ended || answer instanceof Unknown) {
                over(request, response, chain, answer);
            } else {
                chain.doFilter(request, response);
                settle(request, response);
            }
        } finally {
            SERVED.remove();
        }
    }

    // ---- Before the application ----

    /** What is so of a session; null: it is a stranger's. */
    private Answer judged(HttpServletRequest request, HttpSession session) {
        var tracked = (Tracked) session.getAttribute(TRACKED);
        String who = subject.apply(request);
        try {
            if (tracked != null && who != null && !who.equals(tracked.subject)) {
                // Another person: nothing of the former session goes on.
                begin(request, session, who);
                tracked = (Tracked) session.getAttribute(TRACKED);
            }
            if (tracked == null) return who == null ? null : adopted(request, session, new Tracked(session.getId(), who, loginTime(session), session.getLastAccessedTime()));
            tracked = renamed(session, tracked);
            Answer answer = touched(request, session, tracked);
            return answer instanceof Unknown && adopts ? adopted(request, session, tracked) : answer;
        } catch (SidecarException.SessionOver over) {
            return over.answer;
        } catch (SidecarException.Away away) {
            return away.answer;
        }
    }

    private Answer touched(HttpServletRequest request, HttpSession session, Tracked tracked) {
        Activity activity = background.test(request) ? Activity.ACTIVITY_BACKGROUND : Activity.ACTIVITY_UNSPECIFIED;
        Answer answer = sidecar.touch(tracked.id, activity, Refusal.hints(request));
        long now = System.currentTimeMillis();
        if (answer instanceof Live live && live.counted() && now - tracked.seen >= SEEN_EVERY) session.setAttribute(TRACKED, tracked.seenAt(now));
        return answer;
    }

    /** A session that the sidecar does not know begins there, as old and as idle as it is: no limit is passed by it. */
    private Answer adopted(HttpServletRequest request, HttpSession session, Tracked tracked) {
        if (!adopts) return new Unknown("", false);
        long now = System.currentTimeMillis(), sinceLogin = Math.max(0, now - tracked.login), idle = Math.max(0, now - tracked.seen);
        try {
            sidecar.create(
                    CreateRequest.newBuilder().setSessionId(session.getId()).setSubject(tracked.subject).setPolicy(policy)
                            .setAuthenticatedAgo(Sidecar.duration(sinceLogin)).setIdleFor(Sidecar.duration(Math.min(idle, sinceLogin))));
        } catch (SidecarException.Refused refused) {
            switch (refused.reason) {
                case "SESSION_EXISTS": // Another request of the same session was faster.
                    break;
                case "ALREADY_PAST_LIMIT":
                    // Its message names the field; it is the only place where it is said which limit that was.
                    boolean absolute = refused.getMessage().contains(": authenticated_ago");
                    EndReason reason = absolute ? EndReason.END_REASON_ABSOLUTE_TIMEOUT : EndReason.END_REASON_IDLE_TIMEOUT;
                    return new Ended("", SessionEnd.newBuilder().setReason(reason).setActor(Actor.ACTOR_POLICY).build());
                case "SUBJECT_CAP":
                    return new Unknown("", false);
                case "SESSION_CAP", "STORE_FULL": // A sidecar without room knows this session as little as one that is away.
                    return new Unreachable(sidecar.failsOpen(), refused.reason, refused.getMessage(), null);
                default:
                    throw refused;
            }
        }
        tracked = tracked.named(session.getId());
        session.setAttribute(TRACKED, tracked);
        return touched(request, session, tracked);
    }

    /** Tells the sidecar of an id that it does not know yet. */
    private Tracked renamed(HttpSession session, Tracked tracked) {
        if (tracked.id.equals(session.getId())) return tracked;
        try {
            sidecar.rotate(RotateRequest.newBuilder().setSessionId(tracked.id).setNewSessionId(session.getId()));
        } catch (SidecarException.Refused refused) {
            if (!refused.reason.equals("SESSION_EXISTS")) throw refused; // Another request of it was faster.
        } catch (SidecarException.SessionOver over) {
            // What nobody knows any more is adopted under its new id.
            if (over.answer instanceof Ended ended && ended.end().getReason() != EndReason.END_REASON_ROTATED) throw over;
        }
        Tracked now = tracked.named(session.getId());
        session.setAttribute(TRACKED, now);
        return now;
    }

    /** Of a cookie whose session the container no longer has: if it has ended, its person is told why. */
    private Answer former(HttpServletRequest request) {
        if (request.getRequestedSessionId() == null || !request.isRequestedSessionIdFromCookie()) return null;
        try {
            Answer answer = sidecar.check(request.getRequestedSessionId());
            // One that was given a new id goes on, and this browser is about to learn it.
            return answer instanceof Ended ended && ended.end().getReason() != EndReason.END_REASON_ROTATED ? answer : null;
        } catch (SidecarException nonsense) {
            return null; // It can be no id: a cookie is whatever somebody sent.
        }
    }

    /** When its person logged in, as far as the container knows: sessions get a new id at login. */
    private static long loginTime(HttpSession session) {
        return session.getAttribute(RENAMED) instanceof Long time ? time : session.getCreationTime();
    }

    // ---- A session that is over ----

    private void over(HttpServletRequest request, HttpServletResponse response, FilterChain chain, Answer answer) throws IOException, ServletException {
        HttpSession session = request.getSession(false);
        drop(session);
        response.addCookie(Refusal.takenBack(request));
        // What somebody who is about to log in has typed is not thrown away; and who has logged out, and is nobody here, may look around.
        boolean ownLogout = answer instanceof Ended ended && ended.end().getReason() == EndReason.END_REASON_LOGOUT && ended.end().getActor() == Actor.ACTOR_USER;
        if (!request.getRequestURI().equals(Refusal.path(loginUrl)) && !(ownLogout && session == null)) {
            Refusal.over(request, response, answer, loginUrl);
            return;
        }
        var stranger = new Stranger(request);
        stranger.setAttribute(OVER, answer);
        chain.doFilter(stranger, response);
        settle(stranger, response);
    }

    /** Ends the container's session alone: the sidecar knows already. */
    private static void drop(HttpSession session) {
        if (session == null) return;
        try {
            session.removeAttribute(TRACKED);
            session.invalidate();
        } catch (IllegalStateException gone) {
            // Another request of it was faster.
        }
    }

    /** The request without the person whose session is over, until somebody logs in with it. */
    private static final class Stranger extends HttpServletRequestWrapper {
        private boolean loggedIn;

        Stranger(HttpServletRequest request) {
            super(request);
        }

        @Override
        public void login(String name, String password) throws ServletException {
            if (super.getUserPrincipal() != null) super.logout();
            super.login(name, password);
            loggedIn = true;
        }

        @Override
        public String getRemoteUser() {
            return loggedIn ? super.getRemoteUser() : null;
        }

        @Override
        public Principal getUserPrincipal() {
            return loggedIn ? super.getUserPrincipal() : null;
        }

        @Override
        public boolean isUserInRole(String role) {
            return loggedIn && super.isUserInRole(role);
        }
    }

    // ---- After the application ----

    /** A login, or what else the application did to the session. */
    private void settle(HttpServletRequest request, HttpServletResponse response) throws IOException {
        HttpSession session = request.getSession(false);
        String who = session == null ? null : subject.apply(request);
        if (who == null) return;
        SERVED.set(session);
        var tracked = (Tracked) session.getAttribute(TRACKED);
        try {
            if (tracked == null || !tracked.subject.equals(who)) {
                if (tracked != null && response.isCommitted()) {
                    session.invalidate(); // Another person, and its new id could not be told to the browser.
                    return;
                }
                begin(request, session, who);
            } else {
                renamed(session, tracked);
            }
        } catch (IllegalStateException invalid) { // A request beside this one has just ended the session.
            if (request.getSession(false) != null) throw invalid;
        } catch (SidecarException.SessionOver over) {
            drop(session); // It ended meanwhile.
        } catch (SidecarException problem) {
            LOGGER.log(System.Logger.Level.WARNING, "a login was refused: " + problem.getMessage());
            if (response.isCommitted()) return;
            response.reset();
            if (problem instanceof SidecarException.Away away) {
                Refusal.unavailable(request, response, away.answer);
            } else {
                response.sendError(HttpServletResponse.SC_FORBIDDEN, problem.getMessage());
            }
        }
    }

    /** Somebody has logged in. If that cannot be, nobody has. */
    private void begin(HttpServletRequest request, HttpSession session, String who) {
        var tracked = (Tracked) session.getAttribute(TRACKED);
        session.removeAttribute(TRACKED);
        try {
            if (tracked != null) request.changeSessionId();
            if (tracked == null || !rotated(session, tracked, who)) {
                sidecar.create(CreateRequest.newBuilder().setSessionId(session.getId()).setSubject(who).setPolicy(policy));
            }
            long now = System.currentTimeMillis();
            session.setAttribute(TRACKED, new Tracked(session.getId(), who, now, now));
        } catch (SidecarException.Away away) {
            if (away.answer.allowed()) return; // It is adopted with its next request.
            drop(session);
            throw away;
        } catch (SidecarException problem) {
            if (problem instanceof SidecarException.Refused refused && refused.reason.equals("SESSION_EXISTS")) return; // Adopted meanwhile.
            drop(session);
            throw problem;
        }
    }

    /** The same person logged in again. Of another's session nothing goes on, neither its holds nor its open sockets. */
    private boolean rotated(HttpSession session, Tracked tracked, String who) {
        try {
            if (tracked.subject.equals(who)) {
                sidecar.rotate(
                        RotateRequest.newBuilder().setSessionId(tracked.id).setNewSessionId(session.getId()).setSubject(who)
                                .setAuthenticatedAgo(Sidecar.duration(0)));
                return true;
            }
            sidecar.end(EndRequest.newBuilder().setSessionId(tracked.id).setActorId(tracked.subject));
        } catch (SidecarException.SessionOver over) {
            // It ended while the person typed the password.
        }
        return false;
    }

    // ---- What the container tells ----

    /** The session has a new id: it goes on under that in the sidecar. If that cannot be told now, its next request tells it. */
    @Override
    public void sessionIdChanged(HttpSessionEvent event, String oldId) {
        HttpSession session = event.getSession();
        if (!(session.getAttribute(TRACKED) instanceof Tracked tracked)) {
            session.setAttribute(RENAMED, System.currentTimeMillis());
            return;
        }
        try {
            renamed(session, tracked);
        } catch (SidecarException problem) {
            LOGGER.log(System.Logger.Level.WARNING, "a session's new id could not be told: " + problem.getMessage());
        }
    }

    /** The session is gone: a logout, if it was the request of this thread that did it; else the container's own limit, or its end. */
    @Override
    public void sessionDestroyed(HttpSessionEvent event) {
        HttpSession session = event.getSession();
        if (!(session.getAttribute(TRACKED) instanceof Tracked tracked)) return;
        var request = EndRequest.newBuilder().setSessionId(tracked.id);
        HttpSession served = SERVED.get();
        if (served == null || !served.getId().equals(session.getId())) {
            sidecar.endSoon(request.setReason(EndReason.END_REASON_REVOKED).setActor(Actor.ACTOR_SYSTEM).setNote("the servlet container ended its session"));
            return;
        }
        try {
            sidecar.end(request.setActorId(tracked.subject));
        } catch (SidecarException problem) {
            LOGGER.log(System.Logger.Level.WARNING, "a session that is over here could not be ended: " + problem.getMessage());
        }
    }
}
