import com.google.gson.JsonArray;
import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import com.google.gson.JsonPrimitive;
import com.google.protobuf.Any;
import com.google.protobuf.Descriptors.FieldDescriptor;
import com.google.protobuf.Duration;
import com.google.protobuf.Message;
import com.google.protobuf.Timestamp;
import com.google.protobuf.util.JsonFormat;
import io.grpc.CallOptions;
import io.grpc.Channel;
import io.grpc.Context;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.MethodDescriptor;
import io.grpc.StatusRuntimeException;
import io.grpc.protobuf.ProtoMethodDescriptorSupplier;
import io.grpc.stub.ClientCalls;
import io.netty.channel.EventLoopGroup;
import io.netty.channel.epoll.EpollEventLoopGroup;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Instant;
import java.util.ArrayList;
import java.util.Collections;
import java.util.HashMap;
import java.util.Iterator;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.TimeUnit;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import sessionsidecar.Access;
import sessionsidecar.client.v1.Errors;
import sessionsidecar.dev.v1.TestClockServiceGrpc;
import sessionsidecar.v1.SessionAdminServiceGrpc;
import sessionsidecar.v1.SessionServiceGrpc;
import sessionsidecar.v1.SessionServiceOuterClass.Session;
import sessionsidecar.v1.SessionServiceOuterClass.WatchExpiryRequest;
import sessionsidecar.v1.SessionServiceOuterClass.WatchExpiryResponse;

/** Executes the conformance scenario with grpc-java and prints its transcript: Run TARGET SCENARIO. See README.md. */
public final class Run {
    private static final long PATIENCE = 30; // seconds; only a failing run waits as long
    private static final Set<String> FOR_PEOPLE = Set.of("summary", "explanation", "problem", "toml"); // may be reworded
    private static final Set<String> NOW = Set.of("server_time", "emit_time");
    private static final Metadata.Key<byte[]> DETAILS = Metadata.Key.of("grpc-status-details-bin", Metadata.BINARY_BYTE_MARSHALLER);

    public static void main(String[] arguments) throws Exception {
        var runner = new Runner(arguments[0]);
        for (JsonElement step : JsonParser.parseString(Files.readString(Path.of(arguments[1]))).getAsJsonArray()) {
            runner.step(step.getAsJsonObject()).forEach(System.out::println);
        }
        System.exit(0);
    }

    private static List<String> indented(List<String> lines) {
        return lines.stream().map(line -> "  " + line).toList();
    }

    /** JSON as the scenario's authors, and Python, write it: with a blank after each comma and colon. */
    private static String written(JsonElement value) {
        if (value instanceof JsonArray array) return "[" + String.join(", ", array.asList().stream().map(Run::written).toList()) + "]";
        if (!(value instanceof JsonObject object)) return value.toString();
        return "{" + String.join(", ", object.entrySet().stream().map(each -> new JsonPrimitive(each.getKey()) + ": " + written(each.getValue())).toList()) + "}";
    }

    /** What ids and refs are called in the transcript, where they must not stand themselves. */
    private static final class Names {
        private final Map<String, String> byValue = new LinkedHashMap<>();

        /** A page token is told as {@code <token:page>}, and meant by {@code $page.token}. */
        void learnPage(String token) {
            byValue.values().removeIf("<token:page>"::equals);
            byValue.put(token, "<token:page>");
        }

        void learn(String alias, String id, String ref) {
            byValue.putIfAbsent(id, "<id:" + alias + ">");
            byValue.putIfAbsent(ref, "<ref:" + alias + ">");
        }

        /** The id of {@code $alias}, the ref of {@code $alias.ref}. */
        String value(String name) {
            String[] parts = name.substring(1).split("[.]");
            String wanted = "<" + (parts.length > 1 ? parts[1] : "id") + ":" + parts[0] + ">";
            return byValue.entrySet().stream().filter(each -> each.getValue().equals(wanted)).findFirst().orElseThrow().getKey();
        }

        /** Refs of sessions that nobody created are numbered. */
        String shown(String key, String value) {
            if (key.equals("session_ref") && !value.isEmpty()) {
                byValue.putIfAbsent(value, "<ref:unknown-" + (byValue.values().stream().filter(shown -> shown.contains("unknown")).count() + 1) + ">");
            }
            return byValue.getOrDefault(value, value);
        }
    }

    /** In steps of ten seconds, from 6.5 s below to 3.5 s above: real time passes between two steps too, and most times get less by it. */
    private static String duration(double seconds) {
        long near = (long) Math.floor((seconds + 6.5) / 10) * 10, rest = Math.abs(near);
        String told = (rest / 3600 > 0 ? rest / 3600 + "h" : "") + (rest / 60 % 60 > 0 ? rest / 60 % 60 + "m" : "") + (rest % 60 > 0 ? rest % 60 + "s" : "");
        return (near < 0 ? "-" : "") + (told.isEmpty() ? "0s" : told);
    }

    private static double seconds(Object message) {
        return message instanceof Timestamp time ? time.getSeconds() + time.getNanos() / 1e9 : ((Duration) message).getSeconds() + ((Duration) message).getNanos() / 1e9;
    }

    /** The sidecar's clock when it made this message: the first that is told in it. */
    private static Double findNow(Message message) {
        for (var each : message.getAllFields().entrySet()) {
            if (NOW.contains(each.getKey().getName())) return seconds(each.getValue());
            if (each.getKey().getJavaType() != FieldDescriptor.JavaType.MESSAGE || each.getKey().isMapField()) continue;
            for (Object item : each.getValue() instanceof List<?> list ? list : List.of(each.getValue())) {
                Double now = findNow((Message) item);
                if (now != null) return now;
            }
        }
        return null;
    }

    /** One line for each field that is set. Times are told relative to the message's own. */
    private static List<String> flatten(Names names, Message message, String prefix, Double now) {
        List<String> lines = new ArrayList<>();
        message.getAllFields().forEach((field, value) -> {
            String name = field.getName(), path = prefix + name;
            if (NOW.contains(name) || name.equals("resume_token") || (prefix.endsWith("error.") && name.equals("message"))) return;
            if (!(value instanceof List<?> list)) {
                lines.addAll(told(names, field, path, value, now));
                return;
            }
            for (int place = 0; place < list.size(); place++) {
                if (field.isMapField()) {
                    List<Object> entry = new ArrayList<>(((Message) list.get(place)).getAllFields().values());
                    lines.add(path + "." + entry.get(0) + " = " + names.shown(name, entry.size() > 1 ? entry.get(1).toString() : ""));
                } else {
                    lines.addAll(told(names, field, path + "[" + place + "]", list.get(place), now));
                }
            }
        });
        Collections.sort(lines);
        return lines;
    }

    private static List<String> told(Names names, FieldDescriptor field, String path, Object item, Double now) {
        if (item instanceof Timestamp) return List.of(path + " = now " + duration(seconds(item) - now));
        if (item instanceof Duration) return List.of(path + " = " + duration(seconds(item)));
        if (item instanceof Message inner) {
            Double own = findNow(inner);
            List<String> lines = flatten(names, inner, path + ".", own != null ? own : now);
            return lines.isEmpty() ? List.of(path + " = {}") : lines;
        }
        // A watch that its client has just left may still be there.
        if (field.getName().equals("watcher_count")) return List.of(path + " = <watchers>");
        if (FOR_PEOPLE.contains(field.getName())) return List.of(path + " = <text>");
        return List.of(path + " = " + (item instanceof String text ? names.shown(field.getName(), text) : item.toString()));
    }

    /** An error: its code and typed details. Messages are for people, and may be reworded. */
    private static List<String> failed(Names names, StatusRuntimeException error) throws Exception {
        List<String> lines = new ArrayList<>();
        byte[] details = error.getTrailers() == null ? null : error.getTrailers().get(DETAILS);
        for (Any detail : details == null ? List.<Any>of() : Errors.Status.parseFrom(details).getDetailsList()) {
            if (detail.getTypeUrl().endsWith(".ErrorInfo")) {
                var info = Errors.ErrorInfo.parseFrom(detail.getValue());
                lines.add("ErrorInfo.domain = " + info.getDomain());
                lines.add("ErrorInfo.reason = " + info.getReason());
                info.getMetadataMap().forEach((key, value) -> {
                    boolean time = key.endsWith("_time");
                    if (time) Instant.parse(value);
                    lines.add("ErrorInfo.metadata." + key + " = " + (time ? "<time>" : names.shown(key, value)));
                });
            } else if (detail.getTypeUrl().endsWith(".BadRequest")) {
                Errors.BadRequest.parseFrom(detail.getValue()).getFieldViolationsList().forEach(violation -> lines.add("BadRequest.field = " + violation.getField()));
            }
        }
        Collections.sort(lines);
        List<String> all = new ArrayList<>(List.of(error.getStatus().getCode().name()));
        all.addAll(indented(lines));
        return all;
    }

    /** One watch, on a connection of its own, and the last token that came. */
    private static final class Watcher {
        private final Runner runner;
        private WatchExpiryRequest request;
        private ManagedChannel channel;
        private Context.CancellableContext context;
        private Iterator<WatchExpiryResponse> messages;
        private String token;

        Watcher(Runner runner, WatchExpiryRequest request) {
            this.runner = runner;
            this.request = request;
            open();
        }

        void open() {
            channel = runner.connect();
            context = Context.current().withCancellation();
            context.run(() -> messages = SessionServiceGrpc.newBlockingStub(channel).withDeadlineAfter(2 * PATIENCE, TimeUnit.SECONDS).watchExpiry(request));
        }

        void cut() {
            context.cancel(null);
            channel.shutdownNow();
        }

        void resume() {
            // A resumed watch does not begin with the state again.
            request = request.toBuilder().setIncludeInitialState(false).setResumeToken(token).build();
            open();
        }

        /** The next message, or how the stream ended. */
        List<String> read(Names names) throws Exception {
            try {
                if (!messages.hasNext()) return List.of("OK");
                WatchExpiryResponse message = messages.next();
                token = message.getResumeToken();
                if (token.isEmpty()) throw new IllegalStateException("a message without a resume token");
                return flatten(names, message, "", findNow(message));
            } catch (StatusRuntimeException error) {
                return failed(names, error);
            }
        }
    }

    /** Executes steps; each returns the lines of its transcript. */
    private static final class Runner {
        private static final Pattern NAME = Pattern.compile("\"(\\$[^\"]+)\"");
        private final String target;
        private final EventLoopGroup threads;
        private final Channel channel;
        private final Names names = new Names();
        private final Map<String, Watcher> watchers = new HashMap<>();
        private final Map<String, MethodDescriptor<?, ?>> verbs = new HashMap<>();

        Runner(String target) {
            this.target = target;
            threads = target.startsWith("unix:") ? new EpollEventLoopGroup(1) : null;
            channel = connect();
            for (var service : List.of(SessionServiceGrpc.getServiceDescriptor(), SessionAdminServiceGrpc.getServiceDescriptor(), TestClockServiceGrpc.getServiceDescriptor())) {
                service.getMethods().forEach(method -> verbs.put(method.getBareMethodName(), method));
            }
        }

        ManagedChannel connect() {
            return Access.to(target).channel(threads);
        }

        List<String> step(JsonObject step) throws Exception {
            var first = step.entrySet().iterator().next();
            String name = first.getValue() instanceof JsonPrimitive given ? given.getAsString() : "";
            switch (first.getKey()) {
                case "note":
                    return List.of("", "# " + name);
                case "call", "admin":
                    return ask(step, name);
                case "advance":
                    var duration = new JsonObject();
                    duration.addProperty("duration", name);
                    call("Advance", duration);
                    return List.of("Advance " + name);
                case "watch":
                    watchers.put(name, new Watcher(this, (WatchExpiryRequest) request("WatchExpiry", step.get("request"))));
                    return List.of("Watch (" + name + ") " + written(step.get("request")));
                case "read":
                    return read(name, step.get("count").getAsInt(), step.has("any_order") ? step.get("any_order").getAsInt() : 0);
                case "cut":
                    watchers.get(name).cut();
                    return List.of("Cut (" + name + ")");
                case "resume":
                    watchers.get(name).resume();
                    return List.of("Resume (" + name + ")");
                case "stop":
                    // The driver waits for this line, and stops the sidecar.
                    System.out.println("Stop");
                    List<String> lines = new ArrayList<>();
                    for (JsonElement each : first.getValue().getAsJsonArray()) lines.addAll(read(each.getAsString(), 2, 0));
                    return lines;
                default:
                    throw new IllegalArgumentException(first.getKey());
            }
        }

        /** The request of a verb: all are found by name. */
        private Message request(String verb, JsonElement content) throws Exception {
            var method = (ProtoMethodDescriptorSupplier) verbs.get(verb).getSchemaDescriptor();
            String type = method.getMethodDescriptor().getInputType().getName();
            String outer = switch (verbs.get(verb).getServiceName()) {
                case SessionServiceGrpc.SERVICE_NAME -> "sessionsidecar.v1.SessionServiceOuterClass$";
                case SessionAdminServiceGrpc.SERVICE_NAME -> "sessionsidecar.v1.SessionAdminServiceOuterClass$";
                default -> "sessionsidecar.dev.v1.TestClockServiceOuterClass$";
            };
            var builder = (Message.Builder) Class.forName(outer + type).getMethod("newBuilder").invoke(null);
            String text = NAME.matcher(content.toString()).replaceAll(found -> Matcher.quoteReplacement(new JsonPrimitive(names.value(found.group(1))).toString()));
            JsonFormat.parser().merge(text, builder);
            return builder.build();
        }

        @SuppressWarnings("unchecked")
        private Message call(String verb, JsonElement content) throws Exception {
            var method = (MethodDescriptor<Message, Message>) verbs.get(verb);
            return ClientCalls.blockingUnaryCall(channel, method, CallOptions.DEFAULT.withDeadlineAfter(PATIENCE, TimeUnit.SECONDS), request(verb, content));
        }

        private List<String> ask(JsonObject step, String verb) throws Exception {
            List<String> outcome = new ArrayList<>();
            try {
                Message answer = call(verb, step.get("request"));
                if (step.has("as")) names.learn(step.get("as").getAsString(), (String) field(answer, "session_id"), ((Session) field(answer, "session")).getStatus().getSessionRef());
                if (field(answer, "next_page_token") instanceof String token && !token.isEmpty()) names.learnPage(token);
                outcome.add("OK");
                outcome.addAll(indented(flatten(names, answer, "", findNow(answer))));
            } catch (StatusRuntimeException error) {
                outcome.addAll(failed(names, error));
            }
            outcome = new ArrayList<>(indented(outcome));
            outcome.add(0, verb + " " + written(step.get("request")));
            return outcome;
        }

        private static Object field(Message message, String name) {
            FieldDescriptor field = message.getDescriptorForType().findFieldByName(name);
            return field == null ? null : message.getField(field);
        }

        private List<String> read(String name, int count, int unordered) throws Exception {
            List<List<String>> messages = new ArrayList<>();
            for (int place = 0; place < count; place++) messages.add(watchers.get(name).read(names));
            messages.subList(0, unordered).sort((one, other) -> String.join("\n", one).compareTo(String.join("\n", other)));
            List<String> lines = new ArrayList<>();
            for (List<String> message : messages) {
                lines.add("Read (" + name + ")");
                lines.addAll(indented(message));
            }
            return lines;
        }
    }
}
