//! The one rule that a script knows, against the one that the state machine knows: `scripts/raise.lua` and `Pulse::touch` agree
//! on every record and every moment.

use std::{sync::Arc, time::Duration};

use redis::Value;
use session_sidecar::{
    config::parse_policies,
    state::{Identity, Limits, Moment, Origin, Pulse, Touched},
    time::Time,
};

use super::servers::Server;

const OPERATIONS: usize = 120_000;
const AT_ONCE: usize = 2_000;

/// The script as it is, but for the time, which stands before its arguments.
fn source() -> String {
    let time = include_str!("../../src/store/shared/scripts/time.lua");
    let one = include_str!("../../src/store/shared/scripts/one.lua");
    let counts = include_str!("../../src/store/shared/scripts/counts.lua");
    let raise = include_str!("../../src/store/shared/scripts/raise.lua");
    let body = format!("{time}{one}{counts}{raise}").replace("redis.call('TIME')", "TEST_CLOCK");
    format!("#!lua flags=allow-oom\nlocal TEST_CLOCK = {{table.remove(ARGV, 1), table.remove(ARGV, 1)}}\n{body}")
}

/// Numbers that repeat.
struct Rng(u64);

impl Rng {
    fn below(&mut self, bound: i64) -> i64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 20) as i64).rem_euclid(bound.max(1))
    }

    /// Often small, sometimes large, sometimes nothing.
    fn span(&mut self) -> i64 {
        match self.below(5) {
            0 => 0,
            1 => self.below(3),
            2 => self.below(100_000),
            3 => self.below(10_000_000),
            _ => self.below(5_000_000_000),
        }
    }
}

/// A record and a touch of it, in microseconds.
#[derive(Debug, Clone)]
struct Case {
    version: i64,
    activity: i64,
    flags: i64,
    idle: i64,
    absolute: i64,
    created: i64,
    now: i64,
    beat: Option<i64>,
    correction: i64,
    thought: i64,
    ago: i64,
    window: i64,
    knows: Option<i64>,
}

fn draw(rng: &mut Rng) -> Case {
    let activity = 1_300_000_000_000_000 + rng.below(1_000_000_000_000);
    let created = activity - rng.span();
    let idle = 1 + rng.span();
    let absolute = created + 1 + rng.span() + rng.span();
    // Near what matters: the activity itself, either deadline, or anywhere.
    let about = [activity, activity + idle, absolute, activity + rng.span()][rng.below(4) as usize];
    let now =
        (about + rng.below(5) - 2 + if rng.below(2) == 0 { 0 } else { rng.span() - rng.span() }).max(activity - 2);
    let correction = if rng.below(4) == 0 { rng.span() - rng.span() } else { 0 };
    Case {
        version: 1 + rng.below(3),
        activity,
        flags: [0, 0, 0, 18, 18, 1, 2, 3, 4, 8, 16, 19][rng.below(12) as usize],
        idle,
        absolute,
        created,
        now,
        beat: (rng.below(2) == 0).then(|| now - rng.span()),
        correction,
        thought: match rng.below(8) {
            0 => 0,
            1 => now + 1_000_000 + 1 + rng.below(5),
            2 => now - 1_000_000 - 1 - rng.below(5),
            3 => now + 1_000_000 - rng.below(3),
            // It has known the time for a moment only.
            4 => -(now + rng.below(1000) - 500),
            5 => -(now + 1_000_000 + 1 + rng.below(5)),
            _ => now + rng.below(1000) - 500,
        },
        ago: if rng.below(2) == 0 { 0 } else { rng.span() },
        window: if rng.below(2) == 0 { 0 } else { rng.below(10_000_000) },
        knows: (rng.below(4) != 0).then(|| 1 + rng.below(3)),
    }
}

/// What must come of it: the word, and the activity and lead of the record afterwards.
fn expected(case: &Case, limits: &Limits) -> (&'static str, i64, Option<i64>) {
    let ahead = case.beat.map_or(0, |beat| case.now - beat);
    let unsure = case.thought <= 0 && ahead > 1_000_000;
    if unsure || (case.thought != 0 && (case.now - case.thought.abs()).abs() > 1_000_000) {
        return ("clock", case.activity, None);
    }
    let time = |micros: i64| Time::from_nanos(u64::try_from(micros).expect("positive") * 1000);
    let span = |micros: i64| Duration::from_micros(u64::try_from(micros).expect("positive"));
    let origin = Origin {
        authenticated: time(case.created),
        created: time(case.created),
        identity: Identity::default(),
    };
    let limits = Limits {
        idle_timeout: span(case.idle),
        absolute_timeout: span(case.absolute - case.created),
        ..limits.clone()
    };
    // One that has nothing but open pages is raised like any other: what else may end it stands for the absolute deadline.
    let plain = case.flags == 0 || case.flags == 18;
    let pulse = Pulse::new(time(case.activity)).flagged(case.flags & 1 != 0, case.flags & 2 != 0 && !plain);
    let pulse = if case.flags & 4 != 0 { pulse.dead() } else { pulse };
    // Only the script meets a successor that is pending, which is not live yet, and what no version writes.
    let slow = !plain;
    match pulse.touch(&origin, &limits, span(case.ago), Moment::at(time(case.now))) {
        Touched::Dead | Touched::Slow => ("decide", case.activity, None),
        _ if slow => ("decide", case.activity, None),
        Touched::Raised(raised) if case.window == 0 => {
            let activity = i64::try_from(raised.last_activity().as_nanos() / 1000).expect("fits");
            let moved = activity > case.activity;
            ("ok", activity, moved.then_some(0))
        }
        // With a window one write covers what comes after it, too.
        _ => {
            let reach = case.now - case.ago + case.window;
            let more = reach - case.activity;
            // What is written already is good for another while: then it stays.
            let moved = if case.window == 0 {
                more > 0
            } else {
                2 * more > case.window
            };
            let activity = if moved { reach } else { case.activity };
            ("ok", activity, moved.then_some(case.window))
        }
    }
}

#[tokio::test]
async fn g1_the_script_and_the_state_machine_agree_on_touches() {
    let server = Server::start(&[]).await;
    let policies = parse_policies("").expect("policies");
    let limits: Arc<Limits> = Arc::clone(&policies["default"].limits);
    let client = redis::Client::open(server.url()).expect("an address");
    let mut connection = client.get_connection().expect("a connection");
    let source = source();
    let sha: String = redis::cmd("SCRIPT")
        .arg("LOAD")
        .arg(&source)
        .query(&mut connection)
        .expect("it loads");
    let mut rng = Rng(20_261_128);
    let mut words = std::collections::BTreeMap::<&str, usize>::new();
    for _ in 0..OPERATIONS / AT_ONCE {
        let cases: Vec<_> = (0..AT_ONCE).map(|_| draw(&mut rng)).collect();
        let mut pipeline = redis::pipe();
        for (place, case) in cases.iter().enumerate() {
            let (meta, record) = (format!("m{place}"), format!("r{place}"));
            pipeline.cmd("DEL").arg(&meta).arg(&record).ignore();
            pipeline.cmd("HSET").arg(&meta).arg("c").arg(case.correction).ignore();
            if let Some(beat) = case.beat {
                pipeline.cmd("HSET").arg(&meta).arg("h").arg(beat).ignore();
            }
            pipeline
                .cmd("HSET")
                .arg(&record)
                .arg(&[
                    "v",
                    &case.version.to_string(),
                    "t",
                    &case.activity.to_string(),
                    "l",
                    "77",
                ])
                .arg(&[
                    "f",
                    &case.flags.to_string(),
                    "i",
                    &case.idle.to_string(),
                    "a",
                    &case.absolute.to_string(),
                ])
                .ignore();
            let raw = case.now - case.correction;
            pipeline.cmd("EVALSHA").arg(&sha).arg(2).arg(&meta).arg(&record);
            pipeline.arg(raw / 1_000_000).arg(raw % 1_000_000);
            pipeline.arg(case.thought).arg(case.ago).arg(case.window);
            pipeline.arg(case.knows.map(|version| version.to_string()).unwrap_or_default());
            pipeline.cmd("HMGET").arg(&record).arg("t").arg("l");
        }
        let replies: Vec<Value> = pipeline.query(&mut connection).expect("replies");
        for (case, reply) in cases.iter().zip(replies.chunks_exact(2)) {
            let (word, activity, lead) = expected(case, &limits);
            *words.entry(word).or_default() += 1;
            let Value::Array(told) = &reply[0] else {
                panic!("{reply:?}")
            };
            let said: String = redis::from_redis_value(told[0].clone()).expect("a word");
            let (t, l): (i64, i64) = redis::from_redis_value(reply[1].clone()).expect("numbers");
            assert_eq!((said.as_str(), t, l), (word, activity, lead.unwrap_or(77)), "{case:?}");
            assert_eq!(told[1], Value::Int(case.now), "the bucket's time: {case:?}");
            if word == "ok" {
                let numbers: Vec<i64> = told[8..]
                    .iter()
                    .map(|value| redis::from_redis_value(value.clone()).expect("a number"))
                    .collect();
                assert_eq!(numbers, [activity, lead.unwrap_or(77), case.version], "{case:?}");
                let sent = matches!(&told[7], Value::Array(fields) if !fields.is_empty());
                assert_eq!(
                    sent,
                    case.knows != Some(case.version),
                    "whoever knows the version is not sent the record"
                );
            }
        }
    }
    assert!(
        words.values().all(|count| *count > OPERATIONS / 50) && words.len() == 3,
        "{words:?}"
    );
}
