//! Tests of the listening end, with the real sockets.

use super::*;
use crate::events::queue;
use crossbeam_channel::Receiver;
use std::io::Write;
use std::time::Instant;

const WAIT: Duration = Duration::from_secs(10);

fn open() -> (Channel, Receiver<(Duration, Happened)>) {
    let (sender, events) = queue(Instant::now());
    (Channel::open("secret", 2, sender).unwrap(), events)
}

fn say(channel: &Channel, text: &str) -> TcpStream {
    let mut stream = TcpStream::connect(channel.address()).unwrap();
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

fn is_closed(mut stream: TcpStream) -> bool {
    stream.set_read_timeout(Some(WAIT)).unwrap();
    match stream.read(&mut [0]) {
        Ok(n) => n == 0,
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
        let stream = say(&channel, &words);
        let text = text(&events);
        assert!(text.contains(why), "{text}");
        assert!(is_closed(stream), "{why}");
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
    let late = TcpStream::connect(channel.address()).and_then(|mut late| {
        late.write_all(hello("secret", 1).as_bytes())?;
        Ok(late)
    });
    assert!(late.is_err() || late.is_ok_and(is_closed));
}
