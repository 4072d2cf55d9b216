//! Which servers hold the data: asked of sentinels, or of the nodes of a cluster.

use std::{sync::Arc, time::Duration};

use redis::{Pipeline, Value, from_redis_value};
use tokio::time::timeout;

use super::{
    Address, LAYOUT, Place, SENTINELS, Settings, Unfit,
    connect::{Connector, Wire},
    node::Node,
    server::{ask, refused},
    slots::SLOTS,
};

/// First and last slot of a range.
pub(super) type Range = (u16, u16);

/// The primaries, and the slots that each is responsible for.
pub(super) type Layout = Vec<(Place, Vec<Range>)>;

/// A sentinel or a node that has not told by then is passed over.
const PATIENCE: Duration = Duration::from_secs(1);

/// Finds the servers that hold the data.
pub(super) struct Finder {
    address: Address,
    servers: Arc<Connector>,
    sentinels: Option<Connector>,
    /// Whom to ask first: the next one after each failure, so that nobody who is gone is asked twice in a row.
    turn: usize,
    /// The sentinel that answered last.
    sentinel: Option<(Place, Wire)>,
}

impl Finder {
    pub(super) fn new(settings: &Settings, servers: Arc<Connector>) -> Self {
        Self {
            address: settings.address.clone(),
            servers,
            sentinels: Connector::to_sentinels(settings),
            turn: 0,
            sentinel: None,
        }
    }

    /// Whether the answer is the same for ever.
    pub(super) fn is_constant(&self) -> bool {
        matches!(self.address, Address::Single { .. })
    }

    /// How often to ask.
    pub(super) fn period(&self) -> Duration {
        match self.address {
            Address::Sentinel { .. } => SENTINELS,
            Address::Single { .. } | Address::Cluster { .. } => LAYOUT,
        }
    }

    /// Another one is asked from now on: the one that was asked may not know the truth.
    pub(super) fn doubt(&mut self) {
        self.turn = self.turn.wrapping_add(1);
    }

    /// The primaries as they are now. `known` are asked before others.
    pub(super) async fn find(&mut self, known: &[Arc<Node>]) -> Result<Layout, Unfit> {
        match &self.address {
            Address::Single { place, .. } => Ok(vec![(place.clone(), vec![(0, SLOTS - 1)])]),
            Address::Sentinel { sentinels, name, .. } => {
                let (sentinels, name) = (sentinels.clone(), name.clone());
                let primary = self.ask_sentinels(&sentinels, &name).await?;
                Ok(vec![(primary, vec![(0, SLOTS - 1)])])
            }
            Address::Cluster { seeds, .. } => {
                for index in 0..known.len() {
                    let node = &known[self.turn.wrapping_add(index) % known.len()];
                    if let Some(live) = node.live()
                        && let Ok(layout) = layout_from(&live.calls, &node.place).await
                    {
                        return Ok(layout);
                    }
                }
                let seeds = seeds.clone();
                self.ask_seeds(&seeds).await
            }
        }
    }

    async fn ask_sentinels(&mut self, sentinels: &[Place], name: &str) -> Result<Place, Unfit> {
        if let Some((place, wire)) = &self.sentinel
            && let Ok(primary) = primary_from(wire, place, name).await
        {
            return Ok(primary);
        }
        self.sentinel = None;
        let mut worst = None;
        for _ in sentinels {
            let place = sentinels[self.turn % sentinels.len()].clone();
            match self.ask_sentinel(&place, name).await {
                Ok(primary) => return Ok(primary),
                Err(unfit) => {
                    self.turn = self.turn.wrapping_add(1);
                    worst = Some(worse(worst, unfit));
                }
            }
        }
        Err(worst.unwrap_or_else(|| nobody(name)))
    }

    async fn ask_sentinel(&mut self, place: &Place, name: &str) -> Result<Place, Unfit> {
        let Some(sentinels) = &self.sentinels else {
            return Err(nobody(name));
        };
        let wire = match sentinels.connect(place, Box::new(|_| Ok(()))).await {
            Err(Unfit::NoPassword | Unfit::WrongPassword) => {
                return Err(Unfit::SentinelPassword { at: place.to_string() });
            }
            wire => wire?,
        };
        let primary = primary_from(&wire, place, name).await?;
        self.sentinel = Some((place.clone(), wire));
        Ok(primary)
    }

    async fn ask_seeds(&mut self, seeds: &[Place]) -> Result<Layout, Unfit> {
        let mut worst = None;
        for _ in seeds {
            let place = &seeds[self.turn % seeds.len()];
            let layout = async {
                let wire = self.servers.connect(place, Box::new(|_| Ok(()))).await?;
                layout_from(&wire, place).await
            };
            match layout.await {
                Ok(layout) => return Ok(layout),
                Err(unfit) => {
                    self.turn = self.turn.wrapping_add(1);
                    worst = Some(worse(worst, unfit));
                }
            }
        }
        Err(worst.unwrap_or_else(|| nobody("cluster")))
    }
}

/// Of two reasons the one that does not get well by itself, else the first.
pub(super) fn worse(first: Option<Unfit>, second: Unfit) -> Unfit {
    match first {
        Some(first) if !first.is_transient() || second.is_transient() => first,
        _ => second,
    }
}

fn nobody(name: &str) -> Unfit {
    Unfit::Unreachable {
        at: name.to_owned(),
        why: "nobody is named who could be asked".to_owned(),
    }
}

/// Asks a sentinel for the primary.
async fn primary_from(wire: &Wire, place: &Place, name: &str) -> Result<Place, Unfit> {
    let mut asked = Pipeline::new();
    asked.cmd("SENTINEL").arg("GET-MASTER-ADDR-BY-NAME").arg(name);
    let answer = ask(wire, place, &asked).await?.pop().unwrap_or(Value::Nil);
    let at = place.to_string();
    match &answer {
        Value::ServerError(error) if error.details().is_some_and(|said| said.contains("unknown command")) => {
            return Err(Unfit::NotASentinel { at });
        }
        Value::Nil => {
            let name = name.to_owned();
            return Err(Unfit::UnknownName { at, name });
        }
        answer => refused(&at, "SENTINEL", answer)?,
    }
    match from_redis_value::<(String, u16)>(answer) {
        Ok((host, port)) => Ok(Place { host, port }),
        Err(_) => Err(strange(at, "SENTINEL")),
    }
}

/// Asks a node of a cluster for all primaries.
async fn layout_from(wire: &Wire, place: &Place) -> Result<Layout, Unfit> {
    let mut asked = Pipeline::new();
    asked.cmd("CLUSTER").arg("SLOTS");
    let at = place.to_string();
    let answer = match timeout(PATIENCE, ask(wire, place, &asked)).await {
        Ok(answer) => answer?.pop().unwrap_or(Value::Nil),
        Err(_) => Value::Nil,
    };
    if let Value::ServerError(error) = &answer
        && error
            .details()
            .is_some_and(|said| said.contains("cluster support disabled"))
    {
        return Err(Unfit::NotACluster { at });
    }
    refused(&at, "CLUSTER SLOTS", &answer)?;
    let Value::Array(entries) = answer else {
        return Err(strange(at, "CLUSTER SLOTS"));
    };
    let mut layout = Layout::new();
    for entry in entries {
        let (range, primary) = range_of(entry, place).ok_or_else(|| strange(at.clone(), "CLUSTER SLOTS"))?;
        match layout.iter_mut().find(|(place, _)| *place == primary) {
            Some((_, ranges)) => ranges.push(range),
            None => layout.push((primary, vec![range])),
        }
    }
    if layout.is_empty() {
        return Err(Unfit::NotReady {
            at,
            why: "the cluster has no slots yet".to_owned(),
        });
    }
    layout.sort();
    Ok(layout)
}

/// One entry of CLUSTER SLOTS: first slot, last slot, the primary (host, port, …), its replicas.
fn range_of(entry: Value, asked: &Place) -> Option<(Range, Place)> {
    let Value::Array(parts) = entry else {
        return None;
    };
    let mut parts = parts.into_iter();
    let first = from_redis_value(parts.next()?).ok()?;
    let last = from_redis_value(parts.next()?).ok()?;
    let Value::Array(primary) = parts.next()? else {
        return None;
    };
    let mut primary = primary.into_iter();
    let host: Option<String> = from_redis_value(primary.next()?).ok()?;
    let port = from_redis_value(primary.next()?).ok()?;
    // A node that does not know its own address means the one under which it was reached.
    let host = host
        .filter(|host| !host.is_empty() && host != "?")
        .unwrap_or_else(|| asked.host.clone());
    Some(((first, last), Place { host, port }))
}

fn strange(at: String, command: &str) -> Unfit {
    Unfit::Strange {
        at,
        why: format!("its answer to {command} is not understood"),
    }
}
