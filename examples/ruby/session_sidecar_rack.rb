# frozen_string_literal: true

# A middleware for Rack (and so for Rails, Sinatra, …) that stands behind that of the session. The sidecar's id of a session is one that the
# sidecar made; it is kept in the Rack session, whose own id may change as it likes.

require 'json'
require 'rack'
require 'session_sidecar'

module SessionSidecar
  # From there on `env['session_sidecar.status']` is the status of a live session (`expires_in` says how long it still lives). An application
  # whose person has just authenticated again says `env['session_sidecar.authenticated'] = true`.
  class Middleware
    KEPT = 'session_sidecar' # In the Rack session: id, subject, and when its person logged in and was last active.
    SEEN_EVERY = 30 # seconds: some stores write each change.
    WORDS = {
      'IDLE_TIMEOUT' => 'by inactivity',
      'ABSOLUTE_TIMEOUT' => 'because the longest time since login had passed',
      'BROWSER_CLOSED' => 'because its browser was closed or out of reach',
      'LOGOUT' => 'by logout',
      'REVOKED' => 'because it was revoked',
      'SUPERSEDED' => 'because a newer session of the same person took its place'
    }.freeze

    # `login_url`: where a person whose session is over is sent. `subject`: who is logged in by this session, nil for nobody.
    # `background`: which requests are never activity. `adopt`: whether a session that the sidecar does not know goes on there, as old and
    # as idle as it is, or its person logs in again.
    def initialize(app, login_url:, subject: ->(session) { session['user_id'] }, background: ->(_request) { false }, policy: '', adopt: true, client: Client.new)
      @app, @login_url, @subject, @background, @policy, @adopt, @client = app, login_url, subject, background, policy, adopt, client
    end

    def call(env)
      request = Rack::Request.new(env)
      session = request.session
      answer = judge(request, session)
      env['session_sidecar.status'] = answer.status if answer.is_a?(Live)
      return unavailable(request, answer) if answer.is_a?(Unreachable) && !answer.allowed?

      if answer.is_a?(Ended) || answer.is_a?(Unknown)
        session.clear
        env['session_sidecar.over'] = answer
        # What somebody who is about to log in has typed is not thrown away.
        return over(request, answer) unless request.path == Rack::Utils.unescape_path(@login_url)[/\A[^?]*/]
      end
      before = session[KEPT]
      response = @app.call(env)
      settle(request, session, before) || response
    rescue RefusedError => e
      forbidden(e)
    end

    private

    # ---- Before the application ----

    # What is so of a session; nil: it is a stranger's.
    def judge(request, session)
      subject = @subject.call(session)&.to_s or return
      kept = session[KEPT]
      return adopted(request, session, subject, nil) unless kept && kept['subject'] == subject

      answer = touched(request, session)
      answer.is_a?(Unknown) && @adopt ? adopted(request, session, subject, kept) : answer
    rescue SessionOverError, UnreachableError => e
      e.answer
    end

    def touched(request, session)
      kept = session[KEPT]
      activity = @background.call(request) ? :ACTIVITY_BACKGROUND : :ACTIVITY_UNSPECIFIED
      answer = @client.touch(kept['id'], activity: activity, hints: hints(request))
      now = Time.now.to_i
      session[KEPT] = kept.merge('seen' => now) if answer.is_a?(Live) && answer.counted && now - kept['seen'] >= SEEN_EVERY
      answer
    end

    # A session that the sidecar does not know begins there, as old and as idle as it is: no limit is passed by it.
    def adopted(request, session, subject, kept)
      return Unknown.new unless @adopt

      now = Time.now.to_i
      kept ||= { 'login' => now, 'seen' => now }
      login, idle = [0, now - kept['login']].max, [0, now - kept['seen']].max
      created = @client.create(subject: subject, policy: @policy, authenticated_ago: login, idle_for: [idle, login].min)
      session[KEPT] = kept.merge('id' => created.session_id, 'subject' => subject)
      touched(request, session)
    rescue RefusedError => e
      case e.reason
      # Its message names the field; it is the only place where it is said which limit that was.
      when 'ALREADY_PAST_LIMIT' then Ended.new(nil, e.message.include?(': authenticated_ago') ? 'ABSOLUTE_TIMEOUT' : 'IDLE_TIMEOUT', 'POLICY')
      when 'SUBJECT_CAP' then Unknown.new
      when 'SESSION_CAP', 'STORE_FULL' then raise UnreachableError, Unreachable.new(@client.fails_open?, e.reason, e.message)
      else raise
      end
    end

    # What the policy's rules look at. What the sidecar would refuse is left out or cut, for it is whatever somebody sent.
    def hints(request)
      header = ->(name) { told(request.get_header("HTTP_#{name}"), 64) }
      { host: told(request.host, 255), method: told(request.request_method, 32), path: told(request.path[0, 2048], 2048),
        sec_fetch_user: header['SEC_FETCH_USER'], sec_fetch_mode: header['SEC_FETCH_MODE'], sec_fetch_dest: header['SEC_FETCH_DEST'],
        sec_purpose: header['SEC_PURPOSE'] }
    end

    def told(value, longest) = value && value.length <= longest && value.match?(/\A[ -~]*\z/) ? value : ''

    # ---- After the application ----

    # What it did to the session: a login, a logout, another person. Answers a response only to take the place of the application's.
    def settle(request, session, before)
      subject = @subject.call(session)&.to_s
      kept = session[KEPT]
      again = request.get_header('session_sidecar.authenticated')
      return if subject == (before && before['subject']) && kept && !again

      # Cleared, or another person: nothing of the former session goes on.
      logout(before) if before && !(again && kept && subject == before['subject'])
      session.delete(KEPT)
      return unless subject

      begin_session(request, session, subject, again && kept)
    end

    def begin_session(request, session, subject, former)
      id = (rotated(former) if former && former['subject'] == subject) || @client.create(subject: subject, policy: @policy).session_id
      now = Time.now.to_i
      session[KEPT] = { 'id' => id, 'subject' => subject, 'login' => now, 'seen' => now }
      # Session fixation: no id from before the login may go on.
      request.session_options[:renew] = true
      nil
    rescue UnreachableError => e
      return if e.answer.allowed? # It is adopted with its next request.

      session.clear
      unavailable(request, e.answer)
    rescue RefusedError => e
      session.clear
      forbidden(e)
    end

    def rotated(former)
      @client.rotate(former['id'], authenticated_ago: 0).session_id
    rescue SessionOverError
      nil # It ended while the person typed the password.
    end

    def logout(former)
      @client.end(former['id'], actor_id: former['subject'])
    rescue SessionOverError, UnreachableError => e
      warn "a session that is over here could not be ended: #{e.message}"
    end

    # ---- Refusals, in the words and the JSON of the sidecar's own HTTP door ----

    def navigation?(request)
      mode = request.get_header('HTTP_SEC_FETCH_MODE')
      mode ? mode == 'navigate' : request.get_header('HTTP_ACCEPT').to_s.include?('text/html')
    end

    def over(request, answer)
      reason = answer.reason if answer.is_a?(Ended)
      response = if navigation?(request)
                   url = reason ? "#{@login_url}#{@login_url.include?('?') ? '&' : '?'}reason=#{reason}" : @login_url
                   Rack::Response.new([], 303, 'location' => url, 'cache-control' => 'no-store')
                 else
                   words = WORDS[reason]
                   what = reason ? ['SESSION_ENDED', ['the session has ended', words].compact.join(' ')] : ['SESSION_UNKNOWN', 'the session is not known: it is over']
                   at = answer.end_time&.utc&.iso8601(3) if reason
                   ended = { reason: reason, message: words, end_time: at }.compact if reason
                   json(401, *what, { session_ref: answer.session_ref, end: ended }.compact)
                 end
      options = request.session_options
      response.delete_cookie(options[:key] || 'rack.session', path: options[:path], domain: options[:domain])
      response.finish
    end

    def unavailable(request, away)
      text = 'For a moment it cannot be told who is logged in. Please try again.'
      response = navigation?(request) ? Rack::Response.new([text, "\n"], 503, 'content-type' => 'text/plain; charset=utf-8', 'cache-control' => 'no-store') : json(503, 'UNAVAILABLE', text)
      response['retry-after'] = [1, (away.retry_after || 1).ceil].max.to_s
      response.finish
    end

    def json(status, error, message, more = {})
      message += '; send the person to the login page' if status == 401
      body = JSON.generate({ error: error, message: message, login_url: @login_url }.merge(more))
      Rack::Response.new([body], status, 'content-type' => 'application/json', 'cache-control' => 'no-store')
    end

    # READ_ONLY_SESSION, or more sessions than its person may have.
    def forbidden(refused) = [403, { 'content-type' => 'text/plain; charset=utf-8', 'cache-control' => 'no-store' }, [refused.message, "\n"]]
  end
end
