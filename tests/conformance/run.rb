# frozen_string_literal: true

# Executes the conformance scenario with Ruby's grpc and prints its transcript: run.rb TARGET. See README.md.

require 'json'
require 'session_sidecar'
require 'sessionsidecar/v1/session_admin_service_services_pb'
require 'sessionsidecar/dev/v1/test_clock_service_services_pb'

PATIENCE = 30 # seconds; only a failing run waits as long
FOR_PEOPLE = %w[summary explanation problem toml].freeze # may be reworded
NOW = %w[server_time emit_time].freeze
V1 = Sessionsidecar::V1

# What ids and refs are called in the transcript, where they must not stand themselves.
class Names
  def initialize = @by_value = {}

  # A page token is told as `<token:page>`, and meant by `$page.token`.
  def learn_page(token)
    @by_value.delete_if { |_, shown| shown == '<token:page>' }
    @by_value[token] = '<token:page>'
  end

  def learn(name, created)
    @by_value[created.session_id] ||= "<id:#{name}>"
    @by_value[created.session.status.session_ref] ||= "<ref:#{name}>"
  end

  # The id of `$alias`, the ref of `$alias.ref`.
  def value(name)
    of, kind = name[1..].split('.', 2)
    @by_value.key("<#{kind || 'id'}:#{of}>")
  end

  # Refs of sessions that nobody created are numbered.
  def shown(key, value)
    @by_value[value] ||= "<ref:unknown-#{@by_value.values.count { |shown| shown.include?('unknown') } + 1}>" if key == 'session_ref' && !value.empty?
    @by_value.fetch(value, value)
  end
end

def seconds(message) = message.seconds + message.nanos / 1e9

# In steps of ten seconds, from 6.5 s below to 3.5 s above: real time passes between two steps too, and most times get less by it.
def duration(seconds)
  near = ((seconds + 6.5) / 10).floor * 10
  rest = near.abs
  parts = [[3600, 10**6, 'h'], [60, 60, 'm'], [1, 60, 's']].map { |size, base, unit| [rest / size % base, unit] }
  (near.negative? ? '-' : '') + (parts.reject { |count, _| count.zero? }.join.then { |all| all.empty? ? '0s' : all })
end

# The fields that are set, in the order of their numbers.
def fields(message)
  message.class.descriptor.sort_by(&:number).filter_map do |field|
    value = field.get(message)
    set = if field.label == :repeated then !value.length.zero?
          elsif field.type == :message then !value.nil?
          elsif value.is_a?(Symbol) then !field.subtype.lookup_name(value).zero?
          else ![0, '', false].include?(value)
          end
    [field, value] if set
  end
end

# The sidecar's clock when it made this message: the first that is told in it.
def find_now(message)
  fields(message).each do |field, value|
    return seconds(value) if NOW.include?(field.name)
    next if field.type != :message || value.is_a?(Google::Protobuf::Map)

    (value.is_a?(Google::Protobuf::RepeatedField) ? value : [value]).each { |item| (now = find_now(item)) && (return now) }
  end
  nil
end

# One line for each field that is set. Times are told relative to the message's own.
def flatten(names, message, prefix = '', now = find_now(message))
  fields(message).flat_map do |field, value|
    next [] if [*NOW, 'resume_token'].include?(field.name) || (prefix.end_with?('error.') && field.name == 'message')

    path = prefix + field.name
    items = case value
            when Google::Protobuf::Map then value.to_h.map { |key, item| ["#{path}.#{key}", item] }
            when Google::Protobuf::RepeatedField then value.each_with_index.map { |item, place| ["#{path}[#{place}]", item] }
            else [[path, value]]
            end
    items.flat_map do |at, item|
      case item
      when Google::Protobuf::Timestamp then "#{at} = now #{duration(seconds(item) - now)}"
      when Google::Protobuf::Duration then "#{at} = #{duration(seconds(item))}"
      when Google::Protobuf::MessageExts
        inner = flatten(names, item, "#{at}.", find_now(item) || now)
        inner.empty? ? "#{at} = {}" : inner
      else
        # A watch that its client has just left may still be there.
        next "#{at} = <watchers>" if field.name == 'watcher_count'
        next "#{at} = <text>" if FOR_PEOPLE.include?(field.name)

        "#{at} = #{item.is_a?(String) ? names.shown(field.name, item) : item}"
      end
    end
  end.sort
end

# An error: its code and typed details. Messages are for people, and may be reworded.
def failed(names, error)
  failure = SessionSidecar::Failure.new(error)
  lines = failure.fields.map { |field| "BadRequest.field = #{field}" }
  unless failure.reason.empty?
    lines.push("ErrorInfo.domain = #{failure.domain}", "ErrorInfo.reason = #{failure.reason}")
    failure.metadata.each do |key, value|
      value = Time.iso8601(value) && '<time>' if key.end_with?('_time')
      lines << "ErrorInfo.metadata.#{key} = #{names.shown(key, value)}"
    end
  end
  [failure.code, *lines.sort.map { |line| "  #{line}" }]
end

def stub(service, target, **more)
  service::Stub.new(target, :this_channel_is_insecure, timeout: 2 * PATIENCE, channel_args: SessionSidecar::Client::CHANNEL.merge(more))
end

# One watch, on a connection of its own, and the last token that came.
class Watcher
  def initialize(target, request)
    @target, @request = target, request
    open
  end

  def open
    # A connection of its own, to be closed with it.
    stub = stub(V1::SessionService, @target, 'grpc.use_local_subchannel_pool' => 1)
    @call = stub.watch_expiry(@request, return_op: true)
    @messages = @call.execute
  end

  def cut = @call.cancel

  def resume
    # A resumed watch does not begin with the state again.
    @request.include_initial_state = false
    @request.resume_token = @token
    open
  end

  # The next message, or how the stream ended.
  def read(names)
    message = @messages.next
    @token = message.resume_token
    raise 'a message without a resume token' if @token.empty?

    flatten(names, message)
  rescue StopIteration
    ['OK']
  rescue GRPC::BadStatus => e
    failed(names, e)
  end
end

# Executes steps; each returns the lines of its transcript.
class Runner
  def initialize(target)
    @target, @names, @watchers = target, Names.new, {}
    @sessions = stub(V1::SessionService, target)
    @support = stub(V1::SessionAdminService, target)
    @clock = stub(Sessionsidecar::Dev::V1::TestClockService, target)
  end

  def request(kind, content)
    kind.decode_json(JSON.generate(content).gsub(/"(\$[^"]+)"/) { JSON.generate(@names.value(Regexp.last_match(1))) })
  end

  def call(step) = ask(step, step['call'], @sessions)

  def admin(step) = ask(step, step['admin'], @support)

  def ask(step, verb, service)
    asked = request(V1.const_get("#{verb}Request"), step['request'])
    begin
      answer = service.public_send(verb.gsub(/(?<=.)[A-Z]/) { |letter| "_#{letter}" }.downcase, asked)
      @names.learn(step['as'], answer) if step['as']
      @names.learn_page(answer.next_page_token) if answer.respond_to?(:next_page_token) && !answer.next_page_token.empty?
      outcome = ['OK', *indented(flatten(@names, answer))]
    rescue GRPC::BadStatus => e
      outcome = failed(@names, e)
    end
    ["#{verb} #{json(step['request'])}", *indented(outcome)]
  end

  def advance(step)
    @clock.advance(request(Sessionsidecar::Dev::V1::AdvanceRequest, { 'duration' => step['advance'] }))
    ["Advance #{step['advance']}"]
  end

  def watch(step)
    @watchers[step['watch']] = Watcher.new(@target, request(V1::WatchExpiryRequest, step['request']))
    ["Watch (#{step['watch']}) #{json(step['request'])}"]
  end

  def read(step)
    messages = Array.new(step['count']) { @watchers[step['read']].read(@names) }
    unordered = step['any_order'] || 0
    messages = messages.first(unordered).sort + messages.drop(unordered)
    messages.flat_map { |message| ["Read (#{step['read']})", *indented(message)] }
  end

  def cut(step)
    @watchers[step['cut']].cut
    ["Cut (#{step['cut']})"]
  end

  def resume(step)
    @watchers[step['resume']].resume
    ["Resume (#{step['resume']})"]
  end

  def note(step) = ['', "# #{step['note']}"]

  def stop(step)
    # The driver waits for this line, and stops the sidecar.
    puts 'Stop'
    step['stop'].flat_map { |name| read({ 'read' => name, 'count' => 2 }) }
  end

  def indented(lines) = lines.map { |line| "  #{line}" }

  # JSON as the scenario's authors, and Python, write it: with a blank after each comma and colon.
  def json(value)
    case value
    when Hash then "{#{value.map { |key, item| "#{JSON.generate(key)}: #{json(item)}" }.join(', ')}}"
    when Array then "[#{value.map { |item| json(item) }.join(', ')}]"
    else JSON.generate(value)
    end
  end
end

$stdout.sync = true
runner = Runner.new(ARGV.fetch(0))
JSON.parse(File.read(File.join(__dir__, 'scenario.json'))).each { |step| puts runner.public_send(step.keys.first, step) }
