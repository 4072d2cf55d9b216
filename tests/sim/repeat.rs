//! The same seed gives the same history: without that, a failing seed proves nothing on the next machine.

use std::{collections::BTreeMap, thread};

use crate::{
    history::{Entry, Teller, What, clock},
    script::{self, Size},
    world,
};

/// Plays a seed twice, at once on two threads. Answers 1 if the histories differ, and tells where they part.
pub(crate) fn twice(seed: u64, days: u64) -> u64 {
    let script = script::draw(seed, Size::Days(days));
    let (one, other) = thread::scope(|scope| {
        let one = scope.spawn(|| world::play(&script));
        let other = world::play(&script);
        (one.join(), other)
    });
    let one = one.expect("the world turns");
    let Some(place) = parting(&one, &other) else {
        println!("seed {seed} was played twice: {} lines, the same", one.len());
        return 0;
    };
    println!("seed {seed} was played twice and differs at line {place} of its history:");
    for history in [&one, &other] {
        match history.get(place) {
            Some(entry) => {
                let told = Teller::default().line(&entry.what);
                println!("    {} {told}\n        {:?}", clock(entry.at), entry.what);
            }
            None => println!("    (it ends before)"),
        }
    }
    1
}

/// Where two histories differ for the first time. Resume tokens are sealed anew in every process: they are numbered.
fn parting(one: &[Entry], other: &[Entry]) -> Option<usize> {
    let (mut tokens, mut others) = (Tokens::default(), Tokens::default());
    (0..one.len().max(other.len())).find(|place| {
        let written = one.get(*place).map(|entry| tokens.written(entry));
        written != other.get(*place).map(|entry| others.written(entry))
    })
}

#[derive(Default)]
struct Tokens(BTreeMap<String, usize>);

impl Tokens {
    fn written(&mut self, entry: &Entry) -> String {
        let mut entry = entry.clone();
        match &mut entry.what {
            What::Opened { request, .. } => self.number(&mut request.resume_token),
            What::Message { message, .. } => self.number(&mut message.resume_token),
            _ => {}
        }
        format!("{entry:?}")
    }

    fn number(&mut self, token: &mut String) {
        let next = self.0.len();
        *token = self.0.entry(std::mem::take(token)).or_insert(next).to_string();
    }
}
