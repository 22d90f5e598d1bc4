//! Tests of the listening end, with the real sockets.

use super::*;
use crate::events::queue;
use crossbeam_channel::Receiver;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Instant;

const WAIT: Duration = Duration::from_secs(10);

fn open() -> (Channel, Receiver<(Duration, Happened)>) {
    let (sender, events) = queue(Instant::now());
    (Channel::open("secret", 2, &[Ipv4Addr::LOCALHOST.into()], sender).unwrap(), events)
}

fn say(channel: &Channel, text: &str) -> TcpStream {
    let mut stream = TcpStream::connect(channel.addresses()).unwrap();
    stream.write_all(text.as_bytes()).unwrap();
    stream
}

fn hello(token: &str, rank: usize) -> String {
    let hello = Message::Hello { token: token.into(), rank: Rank(rank), host: "h".into(), pid: 7 };
    format!("{}\n", serde_json::to_string(&hello).unwrap())
}

fn text(events: &Receiver<(Duration, Happened)>) -> String {
    format!("{:?}", events.recv_timeout(WAIT).unwrap().1)
}

/// Whether the launcher closes it, after nothing but a welcome.
fn is_closed(mut stream: TcpStream) -> bool {
    stream.set_read_timeout(Some(WAIT)).unwrap();
    let mut said = Vec::new();
    match stream.read_to_end(&mut said) {
        Ok(_) => said.is_empty() || said == WELCOME,
        Err(e) => e.kind() == io::ErrorKind::ConnectionReset,
    }
}

#[test]
fn a_worker_is_heard_until_it_goes() {
    let (channel, events) = open();
    let stream = say(&channel, &format!("{}{{\"kind\":\"checkpoint\",\"step\":5}}\nnonsense\n", hello("secret", 1)));
    assert!(text(&events).contains("Hello { rank: Rank(1)"));
    assert!(text(&events).contains("Said(Rank(1), Checkpoint { stage: 0, step: Step(5) })"));
    assert!(text(&events).contains("makes no sense"));
    drop(stream);
    assert!(text(&events).contains("Closed(Rank(1))"));
}

#[test]
fn strangers_are_dropped() {
    let (channel, events) = open();
    let _first = say(&channel, &hello("secret", 0));
    assert!(text(&events).contains("Hello"));
    let wrong = [
        (hello("guess", 1), "wrong token"),
        ("GET / HTTP/1.1\r\n".into(), "no hello"),
        (hello("secret", 0), "second rank 0"),
        (hello("secret", 2), "rank 2 of 2"),
    ];
    for (words, why) in wrong {
        let mut stream = say(&channel, &words);
        let text = text(&events);
        assert!(text.contains(why), "{text}");
        stream.set_read_timeout(Some(WAIT)).unwrap();
        let mut said = Vec::new();
        let _ = stream.read_to_end(&mut said);
        assert!(said.is_empty(), "{why}: a stranger is told {said:?}");
    }
}

#[test]
fn cutting_closes_every_leash_and_takes_no_more() {
    let (channel, events) = open();
    let stream = say(&channel, &hello("secret", 0));
    assert!(text(&events).contains("Hello"));
    channel.cut();
    assert!(is_closed(stream));
    // It may still meet the listener that is just going; what a worker says then is refused.
    let late = TcpStream::connect(channel.addresses()).and_then(|mut late| {
        late.write_all(hello("secret", 1).as_bytes())?;
        Ok(late)
    });
    assert!(late.is_err() || late.is_ok_and(is_closed));
}

#[test]
fn it_listens_on_the_addresses_given_and_on_no_other() {
    let (sender, events) = queue(Instant::now());
    let foreign: IpAddr = [192, 0, 2, 200].into();
    let addresses = [foreign, Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    let channel = Channel::open("secret", 2, &addresses, sender).unwrap();
    assert!(text(&events).contains("cannot listen on 192.0.2.200"));
    let listed = channel.addresses();
    let listed: Vec<SocketAddr> = listed.split(',').map(|address| address.parse().unwrap()).collect();
    assert_eq!(listed.first().map(SocketAddr::ip), addresses.get(1).copied());
    for (rank, address) in listed.iter().enumerate() {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(hello("secret", rank).as_bytes()).unwrap();
        let mut answer = [0; WELCOME.len()];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(answer, *WELCOME);
        assert!(text(&events).contains("Hello"));
        drop(stream);
        assert!(text(&events).contains("Closed"));
    }
    let second_loopback = SocketAddr::new([127, 0, 0, 2].into(), listed[0].port());
    assert!(TcpStream::connect_timeout(&second_loopback, WAIT).is_err(), "it listens elsewhere, too");
    let (sender, _events) = queue(Instant::now());
    assert!(Channel::open("secret", 2, &[foreign], sender).is_err());
}

#[test]
fn a_stranger_that_never_ends_its_line_is_dropped() {
    let (channel, events) = open();
    let _stream = say(&channel, &"x".repeat(LONGEST_HELLO + 1));
    assert!(text(&events).contains("no hello"));
}
