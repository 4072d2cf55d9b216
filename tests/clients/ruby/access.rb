# frozen_string_literal: true

# Does with the client what access_test.py says, a line each: `client option=value …` makes one, `touch …` asks whether it is let in.

require 'session_sidecar'

$stdout.sync = true
client = nil
$stdin.each_line do |line|
  verb, *options = line.split
  if verb == 'client'
    client = SessionSidecar::Client.new(deadline: 20, **options.to_h { |each| each.split('=', 2) }.transform_keys(&:to_sym))
    puts "client #{client.inspect}"
  else
    client.create(subject: 'ada')
    puts client.touch(options.first).class.name
  end
rescue ArgumentError, SessionSidecar::Error => e
  puts "#{e.class}: #{e.message}".tr("\n", ' ')
end
