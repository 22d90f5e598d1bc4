//! In which order connections ended, as the kernel saw it: on a busy machine the threads that read them find out in any
//! order. Judges nothing.

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use protocol::Rank;
use std::collections::BTreeMap;
use std::net::TcpStream;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Ends that are taken over at once.
const AT_ONCE: usize = 64;

/// The connections that are watched. Where the system has no more watches, a connection ends when its reader says so.
#[derive(Debug)]
pub struct Ends {
    epoll: Option<Epoll>,
    seen: Mutex<BTreeMap<Rank, Duration>>,
}

impl Ends {
    /// Nothing yet.
    pub fn open() -> Ends {
        Ends { epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).ok(), seen: Mutex::default() }
    }

    /// From now on the end of this connection is noticed.
    pub fn watch(&self, rank: Rank, stream: &TcpStream) {
        // An end and an error are told once, in the order in which they come; what is said before is not.
        let what = EpollEvent::new(EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLONESHOT, rank.0 as u64);
        let _ = self.epoll.as_ref().map(|epoll| epoll.add(stream, what));
    }

    /// When the connection of `rank` ended; its reader has found that out `now`. Later than for all that ended before it.
    pub fn of(&self, rank: Rank, now: Duration) -> Duration {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        for ended in self.ended() {
            let after = seen.values().max().map_or(now, |last| now.max(*last + Duration::from_nanos(1)));
            seen.entry(ended).or_insert(after);
        }
        seen.get(&rank).copied().unwrap_or(now)
    }

    /// The kernel's queue, which is in the order of the ends.
    fn ended(&self) -> Vec<Rank> {
        let (mut all, mut some) = (Vec::new(), [EpollEvent::empty(); AT_ONCE]);
        let Some(epoll) = &self.epoll else { return all };
        while let Ok(n @ 1..) = epoll.wait(&mut some, EpollTimeout::ZERO) {
            all.extend(some.iter().take(n).map(|event| Rank(event.data() as usize)));
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{Ipv4Addr, TcpListener};

    #[test]
    fn the_order_is_that_of_the_ends_whoever_asks_first() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let ends = Ends::open();
        let mut pairs: Vec<_> =
            (0..100).map(|_| (TcpStream::connect(address).unwrap(), listener.accept().unwrap().0)).collect();
        pairs.iter().enumerate().for_each(|(rank, (_, here))| ends.watch(Rank(rank), here));
        let now = Duration::from_secs(1);
        // What is said is no end.
        pairs.iter_mut().rev().for_each(|(there, _)| there.write_all(b"x").unwrap());
        assert_eq!(ends.ended(), []);
        let order: Vec<usize> = (0..100).map(|i| i * 37 % 100).collect();
        for &rank in &order {
            pairs[rank].0.shutdown(std::net::Shutdown::Write).unwrap();
        }
        for (_, here) in &mut pairs {
            assert_eq!(here.read_to_end(&mut Vec::new()).unwrap(), 1);
        }
        let of: Vec<Duration> = (0..100).map(|rank| ends.of(Rank(rank), now)).collect();
        assert!(order.is_sorted_by(|one, next| of[*one] < of[*next]), "{of:?}");
        assert_eq!(of[order[0]], now);
        assert!(of.iter().all(|at| *at < now + Duration::from_micros(1)), "{of:?}");
        assert_eq!(ends.of(Rank(100), 2 * now), 2 * now, "one that nobody watches");
    }
}
