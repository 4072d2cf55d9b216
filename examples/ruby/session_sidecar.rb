# frozen_string_literal: true

# A client of the session-sidecar beside this process. Copy it, and generate the API from proto/ with grpc_tools_ruby_protoc. It needs the
# gem grpc, nothing else. The middleware for Rack on top of it is session_sidecar_rack.rb.

require 'grpc'
require 'google/protobuf/well_known_types'
require 'google/rpc/error_details_pb'
require 'google/rpc/status_pb'
require 'logger'
require 'openssl'
require 'securerandom'
require 'time'
require 'sessionsidecar/v1/session_service_services_pb'

module SessionSidecar
  V1 = Sessionsidecar::V1
  DEFAULT_TARGET = '127.0.0.1:50151'

  # The answers of `touch` and `check`. `allowed?`: whether the request may go on. Refs name a session in logs, and are no credentials.
  Live = Struct.new(:status, :counted, :session) { def allowed? = true }
  # `reason` is one word, such as IDLE_TIMEOUT; `end_time` is a Time.
  Ended = Struct.new(:session_ref, :reason, :actor, :end_time, :note, :successor_ref) { def allowed? = false }
  # It ended long ago, or never was, or was lost with a sidecar that only had memory.
  Unknown = Struct.new(:session_ref, :may_have_ended) { def allowed? = false }
  # Nobody can know now: no answer in time, or the sidecar says that it cannot know. `retry_after` is in seconds, or nil.
  Unreachable = Struct.new(:allowed, :code, :message, :retry_after) { def allowed? = allowed }

  # What the other verbs raise. No message ever holds a session id.
  class Error < StandardError; end

  # A command on a session that is not live: `answer` is Ended or Unknown.
  class SessionOverError < Error
    attr_reader :answer

    def initialize(answer)
      @answer = answer
      super("the session #{answer.is_a?(Ended) ? "has ended: #{answer.reason}" : 'is not known'}")
    end
  end

  # Nobody can know now. The command may have been carried out; repeating it with the same request_id is safe.
  class UnreachableError < Error
    attr_reader :answer

    def initialize(answer)
      @answer = answer
      super("session-sidecar does not answer: #{answer.code}: #{answer.message}")
    end
  end

  # The policy or the state refuses; `reason` is one word, such as SESSION_EXISTS, SUBJECT_CAP, READ_ONLY_SESSION.
  class RefusedError < Error
    attr_reader :reason

    def initialize(reason, message)
      @reason = reason
      super("#{reason}: #{message}")
    end
  end

  # A request that can never succeed: a mistake in the program, or an id that somebody sent and that cannot be one.
  class InvalidRequestError < Error
    attr_reader :fields

    def initialize(fields, message)
      @fields = fields
      super(message)
    end
  end

  # This listener does not serve this verb or tenant to this caller, or is no sidecar: a mistake in the configuration.
  class NotPermittedError < Error; end

  # Make one and share it among threads. It connects at its first call, each process for itself: make no call before a fork.
  class Client
    CHANNEL = {
      # The sidecar is beside us: http_proxy is not meant, and it is back soon after a restart.
      'grpc.enable_http_proxy' => 0,
      'grpc.initial_reconnect_backoff_ms' => 100,
      'grpc.min_reconnect_backoff_ms' => 1000,
      'grpc.max_reconnect_backoff_ms' => 1000
    }.freeze

    # `target`: host:port, unix:/path or, for TLS, https://host:port; default: SESSION_SIDECAR_TARGET, else 127.0.0.1:50151. `fail`: what
    # Unreachable answers say, :closed or :open. `deadline`: seconds that a call may take, connecting included. `files`: those of Access.
    def initialize(target: nil, tenant: '', fail: :closed, deadline: 0.25, logger: Logger.new($stderr), **files)
      raise ArgumentError, "fail is :closed or :open, not #{fail.inspect}" unless %i[closed open].include?(fail)

      @access = Access.new(target, **files)
      @tenant, @deadline, @logger, @allowed = tenant, deadline, logger, fail == :open
      @away = false
      @stubs = {}
      @lock = Mutex.new
    end

    # Starts a session at login, or adopts one that runs already (`authenticated_ago`, `idle_for`, in seconds). Answers a CreateResponse.
    def create(**fields) = command(:create, V1::CreateRequest, fields)

    # The person pressed "stay". Answers an ExtendResponse.
    def extend(session_id, **fields) = command(:extend, V1::ExtendRequest, fields.merge(session_id: session_id))

    # Gives a session a new id; with `authenticated_ago` both deadlines begin anew. Answers a RotateResponse.
    def rotate(session_id, **fields) = command(:rotate, V1::RotateRequest, fields.merge(session_id: session_id))

    # Ends a session now. One that ended before is answered with its first end. Answers an EndResponse.
    def end(session_id, **fields) = command(:end, V1::EndRequest, fields.merge(session_id: session_id))

    # Reports that the person did something, and answers whether the session lives. `hints`: fields of TouchHints.
    def touch(session_id, activity: :ACTIVITY_UNSPECIFIED, hints: {})
      request = V1::TouchRequest.new(tenant: @tenant, session_id: session_id, activity: activity, hints: V1::TouchHints.new(**hints))
      answer = call(:touch, request) { |failure| return answer_to(failure) }
      Live.new(answer.status, answer.counted)
    end

    # What a session is. Never extends it.
    def check(session_id)
      request = V1::CheckRequest.new(tenant: @tenant, session_id: session_id)
      session = call(:check, request) { |failure| return answer_to(failure) }.session
      status = session.status
      case status.state
      when :SESSION_STATE_ACTIVE, :SESSION_STATE_EXPIRING then Live.new(status, false, session)
      when :SESSION_STATE_ENDED
        over = session.end
        Ended.new(status.session_ref, word(over.reason), word(over.actor), over.end_time&.to_time, over.note, over.successor_ref)
      else Unknown.new(status.session_ref, status.may_have_ended)
      end
    end

    # Whether `touch` and `check` allow while nobody knows.
    def fails_open? = @allowed

    private

    def command(verb, kind, fields)
      request = kind.new(tenant: @tenant, request_id: SecureRandom.urlsafe_base64(18), **fields.transform_values { |value| wire(value) })
      call(verb, request) do |failure|
        answer = answer_to(failure)
        raise answer.is_a?(Unreachable) ? UnreachableError.new(answer) : SessionOverError.new(answer)
      end
    end

    # Numbers are lengths of time.
    def wire(value)
      return value unless value.is_a?(Numeric)

      Google::Protobuf::Duration.new(seconds: value.floor, nanos: ((value % 1) * 1_000_000_000).to_i)
    end

    # Makes a call, and once or twice more if its connection was lost: all of these may be made again.
    def call(verb, request)
      by = Time.now + @deadline
      # A connection that broke may be taken for whole for a moment more. Of a sidecar that is away nobody expects an answer.
      pauses = @away ? [] : [0.005, 0.02]
      begin
        answer = stub.public_send(verb, request, deadline: by, metadata: @access.metadata)
      rescue GRPC::BadStatus => e
        failure = Failure.new(e)
        if failure.lost_connection? && pauses.any? && Time.now + pauses.first < by
          sleep pauses.shift
          retry
        end
        heard(failure)
        return yield failure
      end
      heard(nil)
      answer
    end

    def stub
      @stubs[Process.pid] ||
        @lock.synchronize { @stubs[Process.pid] ||= V1::SessionService::Stub.new(@access.target, @access.credentials, channel_args: CHANNEL) }
    end

    # Says once that the sidecar is away, and once that it is back. Refusals are answers.
    def heard(failure)
      away = !failure.nil? && %w[UNAVAILABLE DEADLINE_EXCEEDED].include?(failure.code)
      return if @lock.synchronize { @away == away || (@away = away; false) }

      @logger.warn("session-sidecar at #{@access.target} #{away ? "does not answer: #{failure.code}: #{failure.message}" : 'answers again'}")
    end

    def word(name) = name.to_s.sub(/\A(END_REASON|ACTOR)_/, '')

    # What a failure means for a request; raises if it means nothing for it.
    def answer_to(failure)
      told = failure.metadata
      case failure.reason
      when 'SESSION_ENDED'
        at = told['end_time'] && Time.parse(told['end_time'])
        return Ended.new(told['session_ref'], told['reason'], told['actor'], at, told['note'], told['successor_ref'])
      when 'SESSION_UNKNOWN' then return Unknown.new(told['session_ref'], told['may_have_ended'] == 'true')
      end
      case failure.code
      when 'INVALID_ARGUMENT' then raise InvalidRequestError.new(failure.fields, failure.message)
      when 'PERMISSION_DENIED', 'UNAUTHENTICATED', 'UNIMPLEMENTED' then raise NotPermittedError, failure.message
      when 'FAILED_PRECONDITION', 'NOT_FOUND', 'ALREADY_EXISTS', 'OUT_OF_RANGE' then raise RefusedError.new(failure.reason, failure.message)
      when 'RESOURCE_EXHAUSTED' then raise RefusedError.new(failure.reason, failure.message) unless failure.reason.empty?
      end
      Unreachable.new(@allowed, failure.code, failure.message, failure.retry_after)
    end
  end

  # Where a client connects to, whom it trusts there, and as whom it comes. No error tells what is in a file.
  class Access
    # Each is an option, else a variable; those of TLS are for a target https://. CA: the authorities to trust in place of gRPC's own.
    # CERT and KEY: the certificate to show. TOKEN: its first line that is not empty is the bearer token of every call.
    VARIABLES = {
      tls_ca_file: 'SESSION_SIDECAR_TLS_CA_FILE', tls_cert_file: 'SESSION_SIDECAR_TLS_CERT_FILE',
      tls_key_file: 'SESSION_SIDECAR_TLS_KEY_FILE', token_file: 'SESSION_SIDECAR_TOKEN_FILE'
    }.freeze

    attr_reader :target

    def initialize(target, tls_ca_file: nil, tls_cert_file: nil, tls_key_file: nil, token_file: nil)
      target ||= [ENV['SESSION_SIDECAR_TARGET'], DEFAULT_TARGET].find { |each| !each.to_s.empty? }
      @target = target.start_with?('unix:') ? target : target.sub(%r{\A(https?|tcp)://}, '').sub(%r{/+\z}, '')
      @tls = target.start_with?('https://')
      given = { tls_ca_file: tls_ca_file, tls_cert_file: tls_cert_file, tls_key_file: tls_key_file, token_file: token_file }.reject { |_, path| path.to_s.empty? }
      vain = (given.keys - [:token_file]).first unless @tls
      raise ArgumentError, "#{vain} is for TLS: give a target https://host:port" if vain

      # What each is called, and its path.
      @files = VARIABLES.to_h { |option, variable| [option, given[option] ? [option, given[option]] : [variable, ENV[variable]]] }
      @files.reject! { |_, (_, path)| path.to_s.empty? }
      pems if @tls
      @token = token if @files[:token_file]
    end

    # For a new connection: the files are read now.
    def credentials = @tls ? GRPC::Core::ChannelCredentials.new(*pems) : :this_channel_is_insecure

    # What goes with a call. The token is read again when its file changed; while there is none it stays what it was.
    def metadata
      return {} unless @token

      begin
        stat = File.stat(@files[:token_file].last)
        seen = [stat.ino, stat.size, stat.mtime, stat.ctime]
        @token, @seen = token, seen unless seen == @seen
      rescue SystemCallError, ArgumentError
        nil
      end
      { 'authorization' => "Bearer #{@token}" }
    end

    def inspect = "#<#{self.class} #{@target}>"

    private

    # Authorities, key and certificate.
    def pems
      ca, key, certificate = %i[tls_ca_file tls_key_file tls_cert_file].map { |option| @files[option] && read(option) }
      if key.nil? != certificate.nil?
        has, lacks = key ? %i[tls_key_file tls_cert_file] : %i[tls_cert_file tls_key_file]
        raise ArgumentError, "#{@files[has].first} is of no use without #{@files[has].first == has ? lacks : VARIABLES[lacks]}"
      end
      parse(:tls_ca_file, 'certificate in PEM') { OpenSSL::X509::Certificate.load(ca) } if ca
      if certificate
        first, = parse(:tls_cert_file, 'certificate in PEM') { OpenSSL::X509::Certificate.load(certificate) }
        parse(:tls_key_file, 'key in PEM that is the certificate\'s') { first.check_private_key(OpenSSL::PKey.read(key, '')) || nil }
      end
      [ca, key, certificate]
    end

    # What no header can hold is none.
    def token
      parse(:token_file, 'token') { read(:token_file).lines.map(&:strip).find { |line| !line.empty? }&.slice(/\A[ -~]+\z/) }
    end

    def read(option)
      File.binread(@files[option].last)
    rescue SystemCallError => e
      raise ArgumentError, "#{@files[option].join(' ')} cannot be read: #{e.class.name}"
    end

    def parse(option, what)
      yield or raise OpenSSL::OpenSSLError
    rescue OpenSSL::OpenSSLError
      raise ArgumentError, "#{@files[option].join(' ')} has no #{what}", cause: nil
    end
  end

  # An error of the wire, decoded.
  class Failure
    CODES = GRPC::Core::StatusCodes.constants.to_h { |name| [GRPC::Core::StatusCodes.const_get(name), name.to_s] }.freeze

    attr_reader :code, :message, :domain, :reason, :metadata, :fields, :retry_after

    def initialize(error)
      @code, @message, @reason, @metadata, @fields = CODES.fetch(error.code, error.code.to_s), error.details.to_s, '', {}, []
      encoded = error.metadata['grpc-status-details-bin'] or return
      Google::Rpc::Status.decode(encoded).details.each do |detail|
        if (info = detail.unpack(Google::Rpc::ErrorInfo))
          @domain, @reason, @metadata = info.domain, info.reason, info.metadata.to_h
        elsif (bad = detail.unpack(Google::Rpc::BadRequest))
          @fields = bad.field_violations.map(&:field)
        elsif (pause = detail.unpack(Google::Rpc::RetryInfo))
          @retry_after = pause.retry_delay.to_f
        end
      end
    rescue Google::Protobuf::ParseError
      nil # Then the code has to do.
    end

    # Whether it was the connection that failed, not the sidecar that said so.
    def lost_connection? = code == 'UNAVAILABLE' && reason.empty?
  end
end
