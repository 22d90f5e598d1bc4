use super::*;
use std::net::TcpListener;
use std::thread;

fn key(digit: char) -> Key {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("key");
    std::fs::write(&file, digit.to_string().repeat(64)).unwrap();
    Key::read(&file).unwrap()
}

fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (near, listener.accept().unwrap().0)
}

/// An agent that answers and returns the first frame, or why there was none.
fn agent(far: TcpStream, within: Duration) -> thread::JoinHandle<Result<Vec<u8>, Broken>> {
    thread::spawn(move || {
        let (mut sender, mut receiver) = respond(far, &key('a'))?;
        let first = receiver.receive(Some(within))?;
        sender.send(&first)?;
        Ok(first)
    })
}

const SOON: Duration = Duration::from_secs(20);

#[test]
fn frames_of_any_size_come_as_they_were_sent() {
    for size in [0, 1, 1000, MOST] {
        let (near, far) = pair();
        let agent = agent(far, SOON);
        let (mut sender, mut receiver) = initiate(near, &key('a')).unwrap();
        let bytes = vec![7; size];
        sender.send(&bytes).unwrap();
        assert_eq!(receiver.receive(Some(SOON)).unwrap(), bytes);
        assert_eq!(agent.join().unwrap().unwrap(), bytes);
        assert!(matches!(sender.send(&vec![0; MOST + 1]), Err(Broken::TooLong(_))));
        assert!(matches!(receiver.receive(Some(SOON)), Err(Broken::Closed)));
    }
}

#[test]
fn another_key_and_garbage_are_told_nothing() {
    let (near, far) = pair();
    let answer = agent(far, SOON);
    assert!(matches!(initiate(near, &key('b')), Err(Broken::Foreign)));
    assert!(matches!(answer.join().unwrap(), Err(Broken::Foreign)));
    let (mut near, far) = pair();
    let answer = agent(far, SOON);
    near.write_all(&[0xff; 2 * HELLO]).unwrap();
    let mut said = Vec::new();
    let _ = near.read_to_end(&mut said);
    assert_eq!(said, [0u8; 0]);
    assert!(matches!(answer.join().unwrap(), Err(Broken::Foreign)));
}

#[test]
fn a_repeated_handshake_leads_to_nothing() {
    // What a launcher said is written down, and said again to another agent of the same key.
    let (near, mut far) = pair();
    let launcher = thread::spawn(move || initiate(near, &key('a')).map(|_| ()));
    let mut hello = [0; HELLO];
    far.read_exact(&mut hello).unwrap();
    drop(far);
    assert!(launcher.join().unwrap().is_err());
    let (mut near, far) = pair();
    let answer = agent(far, SOON);
    near.write_all(&hello).unwrap();
    let mut answered = [0; HELLO];
    near.read_exact(&mut answered).unwrap();
    near.write_all(&[0, 16]).unwrap();
    near.write_all(&[0; 16]).unwrap();
    assert!(matches!(answer.join().unwrap(), Err(Broken::Garbled)));
}

#[test]
fn who_says_too_little_is_not_waited_for() {
    let (mut near, far) = pair();
    let answer = agent(far, Duration::from_millis(200));
    // A whole handshake, and then half a length.
    let mut state = builder().unwrap().psk(0, key('a').bytes()).unwrap().build_initiator().unwrap();
    say(&mut near, &mut state).unwrap();
    hear(&mut near, &mut state, Instant::now() + SOON).unwrap();
    near.write_all(&[0xff]).unwrap();
    assert!(matches!(answer.join().unwrap(), Err(Broken::Late(_))));
}

#[test]
fn a_changed_byte_is_seen() {
    let (near, far) = pair();
    let answer = agent(far, SOON);
    let (mut sender, _receiver) = initiate(near, &key('a')).unwrap();
    sender.frames = 1;
    sender.send(b"in another place than it was sent").unwrap();
    assert!(matches!(answer.join().unwrap(), Err(Broken::Garbled)));
}
