import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.time.Duration;
import sessionsidecar.Access;
import sessionsidecar.Sidecar;
import sessionsidecar.SidecarException;
import sessionsidecar.v1.SessionServiceOuterClass.Activity;
import sessionsidecar.v1.SessionServiceOuterClass.CreateRequest;
import sessionsidecar.v1.SessionServiceOuterClass.TouchHints;

/** Does with the client what access_test.py says, a line each: {@code client option=value …} makes one, {@code touch ID} asks whether it is let in. */
public final class AccessDriver {
    public static void main(String[] arguments) throws Exception {
        Sidecar sidecar = null;
        var input = new BufferedReader(new InputStreamReader(System.in));
        for (String line = input.readLine(); line != null; line = input.readLine()) {
            try {
                if (line.startsWith("client")) {
                    if (sidecar != null) sidecar.close();
                    var access = access(line.split(" "));
                    sidecar = new Sidecar(access, "", Sidecar.Fail.CLOSED, Duration.ofSeconds(20));
                    System.out.println("client " + sidecar + " " + access);
                } else {
                    sidecar.create(CreateRequest.newBuilder().setSubject("ada"));
                    System.out.println(sidecar.touch(line.substring(6), Activity.ACTIVITY_USER, TouchHints.getDefaultInstance()).getClass());
                }
            } catch (SidecarException.Away error) {
                System.out.println("Unreachable: " + error.getMessage().replace('\n', ' '));
            } catch (IllegalArgumentException | SidecarException error) {
                error.printStackTrace();
                System.out.println(error.toString().replace('\n', ' '));
            }
        }
    }

    private static Access access(String[] words) {
        String target = null;
        for (String word : words) if (word.startsWith("target=")) target = word.substring(7);
        Access access = Access.to(target);
        for (String word : words) {
            String value = word.substring(word.indexOf('=') + 1);
            switch (word.replaceFirst("=.*", "")) {
                case "tls_ca_file" -> access.tlsCaFile(value);
                case "tls_cert_file" -> access.tlsCertFile(value);
                case "tls_key_file" -> access.tlsKeyFile(value);
                case "token_file" -> access.tokenFile(value);
                default -> { }
            }
        }
        return access;
    }
}
