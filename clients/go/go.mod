module session-sidecar

go 1.23

// Lower bounds, and what the tests run with (tests/packages-go.txt); a module that asks for newer ones gets them.
require (
	github.com/BurntSushi/toml v1.4.0
	google.golang.org/genproto/googleapis/rpc v0.0.0-20240318140521-94a12d6c2237
	google.golang.org/grpc v1.64.0
	google.golang.org/protobuf v1.36.5
)

require (
	golang.org/x/net v0.27.0 // indirect
	golang.org/x/sys v0.22.0 // indirect
	golang.org/x/text v0.22.0 // indirect
)
