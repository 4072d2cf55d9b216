# frozen_string_literal: true

# A site in WEBrick behind the middleware, as docs/ruby.md sets it up: site.rb TARGET FAIL CONFIG.RU. A real server, and a real session store.

require 'rack'
require 'rack/handler/webrick'
require 'session_sidecar_rack'

$stdout.sync = true

PAGES = lambda do |env|
  request = Rack::Request.new(env)
  session = request.session
  user = session['user_id']
  say = ->(text) { [200, { 'content-type' => 'text/plain' }, [text]] }
  case [request.request_method, request.path]
  in ['GET', '/login'] then say["login for #{user}, over: #{env['session_sidecar.over']&.reason}"]
  in ['GET', '/public'] then say["hello #{user}"]
  in ['GET', _]
    next [302, { 'location' => '/login' }, []] unless user

    status = env['session_sidecar.status']
    say["#{user} #{status ? (status.expires_in.seconds / 10.0).round * 10 : '?'}"]
  in ['POST', path]
    case path
    when '/login' then session['user_id'] = request.params['user']
    when '/logout' then session.clear
    when '/again' then env['session_sidecar.authenticated'] = true
    when '/rename' then request.session_options[:renew] = true
    end
    [204, {}, []]
  end
end

target, fail, config = ARGV
CLIENT = SessionSidecar::Client.new(target: target, fail: fail.to_sym, deadline: 5)
# rubocop:disable Security/Eval -- the page's own snippet, with the pages of this site and a patient client.
app = Rack::Builder.new { eval(File.read(config), binding, config) }.to_app
# rubocop:enable Security/Eval
server = WEBrick::HTTPServer.new(Port: 0, BindAddress: '127.0.0.1', AccessLog: [])
server.mount('/', Rack::Handler::WEBrick, app)
Thread.new do
  $stdin.read # Until the test closes it.
  server.shutdown
end
puts "listening on #{server.listeners.first.addr[1]}"
server.start
