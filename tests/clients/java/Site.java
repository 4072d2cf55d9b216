import jakarta.servlet.http.HttpServlet;
import jakarta.servlet.http.HttpServletRequest;
import jakarta.servlet.http.HttpServletResponse;
import jakarta.servlet.http.HttpSession;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import org.apache.catalina.Context;
import org.apache.catalina.startup.Tomcat;
import sessionsidecar.Access;
import sessionsidecar.Sidecar;
import sessionsidecar.SessionSidecarFilter;
import sessionsidecar.v1.SessionServiceOuterClass.SessionStatus;

/** A site in Tomcat behind the filter: Site TARGET FAIL WHO. WHO is logged in says the container, an attribute of the session, or
 * docs: the container, in the setup of docs/java.md, with the default deadline. */
public final class Site {
    public static void main(String[] arguments) throws Exception {
        boolean ofContainer = !arguments[2].equals("attribute");
        var tomcat = new Tomcat();
        Path work = Files.createTempDirectory("site");
        tomcat.setBaseDir(work.toString());
        tomcat.setPort(0);
        tomcat.getConnector().setProperty("address", "127.0.0.1");
        Context context = tomcat.addContext("", work.toString());
        for (String name : new String[] {"ada", "bob", "cleo"}) {
            tomcat.addUser(name, "secret");
            tomcat.addRole(name, "person");
        }
        if (arguments[2].equals("docs")) {
            context.addApplicationListener(Sessions.class.getName());
        } else {
            var sidecar = new Sidecar(Access.to(arguments[0]), "", Sidecar.Fail.valueOf(arguments[1].toUpperCase()), Duration.ofSeconds(5));
            var filter = new SessionSidecarFilter(sidecar, "/login").background(request -> request.getRequestURI().equals("/poll")).policy("default");
            if (!ofContainer) filter.subject(Site::attribute);
            context.addServletContainerInitializer((classes, servlets) -> filter.register(servlets, "/*"), null);
        }
        Tomcat.addServlet(context, "pages", new Pages(ofContainer)).addMapping("/");
        tomcat.getEngine().setBackgroundProcessorDelay(1);
        tomcat.start();
        ((org.apache.catalina.session.ManagerBase) context.getManager()).setProcessExpiresFrequency(1);
        System.out.println("listening on " + tomcat.getConnector().getLocalPort());
        System.in.read(); // Until the test closes it.
        tomcat.stop();
        System.exit(0);
    }

    private static String attribute(HttpServletRequest request) {
        HttpSession session = request.getSession(false);
        return session == null ? null : (String) session.getAttribute("user");
    }

    private static final class Pages extends HttpServlet {
        private static final long serialVersionUID = 1;
        private final boolean ofContainer;

        Pages(boolean ofContainer) {
            this.ofContainer = ofContainer;
        }

        private String user(HttpServletRequest request) {
            return ofContainer ? request.getRemoteUser() : attribute(request);
        }

        @Override
        protected void doGet(HttpServletRequest request, HttpServletResponse response) throws IOException {
            response.setContentType("text/plain");
            String user = user(request);
            switch (request.getRequestURI()) {
                case "/login" -> response.getWriter().print("login for " + user + ", over: " + request.getAttribute(SessionSidecarFilter.OVER));
                case "/public" -> response.getWriter().print("hello " + user);
                default -> {
                    if (user == null) {
                        response.sendRedirect("/login");
                        return;
                    }
                    var status = (SessionStatus) request.getAttribute(SessionSidecarFilter.STATUS);
                    response.getWriter().print(user + " " + (status == null ? "?" : Math.round(status.getExpiresIn().getSeconds() / 10.0) * 10));
                }
            }
        }

        @Override
        protected void doPost(HttpServletRequest request, HttpServletResponse response) throws IOException {
            try {
                switch (request.getRequestURI()) {
                    case "/login" -> login(request);
                    case "/logout" -> request.getSession().invalidate();
                    case "/rename" -> request.changeSessionId();
                    case "/again" -> SessionSidecarFilter.authenticated(request);
                    // What the container itself does when it thinks that time is over.
                    case "/short" -> request.getSession().setMaxInactiveInterval(1);
                    default -> throw new IllegalArgumentException(request.getRequestURI());
                }
            } catch (jakarta.servlet.ServletException refused) {
                response.setStatus(403);
                return;
            }
            response.setStatus(204);
        }

        private void login(HttpServletRequest request) throws jakarta.servlet.ServletException {
            String user = request.getParameter("user");
            HttpSession session = request.getSession();
            if (ofContainer) {
                if (request.getRemoteUser() != null) request.logout();
                request.login(user, "secret"); // Tomcat gives the session a new id.
            } else {
                if (!session.isNew()) request.changeSessionId();
                session.setAttribute("user", user);
            }
        }
    }
}
