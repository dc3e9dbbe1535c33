//! What an attacker who owns the store can do to an object: all of it refused, most of it at open.

use proptest::prelude::*;

use super::*;
use crate::evidence::report;

const REFUSED: [ErrorKind; 3] = [ErrorKind::Corrupt, ErrorKind::Format, ErrorKind::UnknownGeneration];

impl Customer {
    fn refuses(&self, sealed: &[u8], what: &str) {
        let error = self.open(sealed).err().unwrap_or_else(|| panic!("accepted: {what}"));
        assert!(REFUSED.contains(&error.kind()), "{what}: {error}");
    }
}

/// The frames of a stored object, in order.
fn frames(sealed: &[u8]) -> Vec<Vec<u8>> {
    let layout = SealedObject::peek(sealed).unwrap().layout();
    sealed[HEADER_LEN..].chunks(layout.frame_len(BLOCK)).map(<[u8]>::to_vec).collect()
}

fn object(header: &[u8], frames: &[Vec<u8>]) -> Vec<u8> {
    [&header[..HEADER_LEN], &frames.concat()].concat()
}

#[test]
fn r4_every_bit_of_a_small_object_flipped_is_refused() {
    let (mut bits, mut rejected) = (0, 0);
    for (customer, len) in Customer::each().iter().flat_map(|customer| [0, 1, 100].map(|len| (customer, len)))
    {
        let sealed = customer.seal(&pattern(len));
        bits += 8 * sealed.len();
        for bit in 0..sealed.len() * 8 {
            let mut forged = sealed.clone();
            forged[bit / 8] ^= 1 << (bit % 8);
            customer.refuses(&forged, "one bit");
            assert!(customer.reader(forged).is_err(), "an object of one block is refused at open");
            rejected += 1;
        }
    }
    report("R4", "flips of three objects of each suite rejected", rejected, "=", bits);
}

#[test]
fn r4_every_byte_of_an_object_of_three_blocks_changed_is_refused() {
    for customer in Customer::each() {
        let sealed = customer.seal(&pattern(2 * BLOCK + 10));
        for at in 0..sealed.len() {
            let mut forged = sealed.clone();
            forged[at] ^= 1 << (at % 8);
            customer.refuses(&forged, "one bit");
        }
    }
}

#[test]
fn r5_every_truncation_is_refused_at_open() {
    for customer in Customer::each() {
        for len in [0, 1, BLOCK, BLOCK + 1, 3 * BLOCK] {
            let sealed = customer.seal(&pattern(len));
            for cut in 0..sealed.len() {
                assert!(customer.reader(&sealed[..cut]).is_err(), "{cut} of {} bytes", sealed.len());
            }
        }
    }
}

#[test]
fn r5_every_extension_is_refused_at_open() {
    for customer in Customer::each() {
        for len in [0, 1, BLOCK, BLOCK + 1] {
            let sealed = customer.seal(&pattern(len));
            let frames = frames(&sealed);
            for more in 1..=customer.frame() + 76 {
                assert!(customer.reader([sealed.as_slice(), &vec![0; more]].concat()).is_err());
            }
            for more in &frames {
                assert!(customer.reader([sealed.as_slice(), more].concat()).is_err(), "a frame once more");
            }
            assert!(customer.reader([sealed.as_slice(), &sealed].concat()).is_err(), "the object twice");
        }
    }
}

#[test]
fn f3_frames_swapped_duplicated_dropped_or_moved_are_refused() {
    for customer in Customer::each() {
        let plain = pattern(4 * BLOCK);
        let sealed = customer.seal(&plain);
        let twin = customer.seal(&plain);
        let own = frames(&sealed);
        let other = frames(&twin);
        for first in 0..own.len() {
            for second in 0..own.len() {
                if first == second {
                    continue;
                }
                let mut swapped = own.clone();
                swapped.swap(first, second);
                customer.refuses(&object(&sealed, &swapped), "swapped");
                let mut duplicated = own.clone();
                duplicated[first] = own[second].clone();
                customer.refuses(&object(&sealed, &duplicated), "duplicated in place");
            }
            let mut inserted = own.clone();
            inserted.insert(first, own[first].clone());
            customer.refuses(&object(&sealed, &inserted), "inserted");
            let mut dropped = own.clone();
            dropped.remove(first);
            customer.refuses(&object(&sealed, &dropped), "dropped");
            let mut moved = own.clone();
            moved[first] = other[first].clone();
            customer.refuses(
                &object(&sealed, &moved),
                "from an object with the same account, context and plaintext",
            );
        }
        customer.refuses(&object(&twin, &own), "under the header of another object");
    }
}

#[test]
fn f3_objects_of_another_account_or_context_are_refused() {
    for (customer, stranger) in Customer::each().into_iter().zip(Customer::each()) {
        let sealed = customer.seal(&pattern(2 * BLOCK));
        assert_eq!(stranger.reader(sealed.as_slice()).unwrap_err().kind(), ErrorKind::Corrupt);

        let theirs = stranger.seal(&pattern(2 * BLOCK));
        let mut mixed = frames(&sealed);
        mixed[0] = frames(&theirs)[0].clone();
        customer.refuses(&object(&sealed, &mixed), "a frame of another account");
        let mut renamed = theirs;
        renamed[16..32].copy_from_slice(customer.account.id().as_bytes());
        customer.refuses(&renamed, "another account's object under our name");

        for wrong in [&[b"store".as_slice(), b"path2"] as &[&[u8]], &[b"storepath"], &[b"store"], &[]] {
            let error =
                SealedObject::reader(customer.account.clone(), Context::new(wrong), sealed.as_slice())
                    .unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{wrong:?}");
        }
    }
}

/// What was sealed under one suite does not pass for the other, header and frames, whatever they say.
#[test]
fn a6_an_object_opens_under_the_suite_of_its_account_only() {
    const SUITE_AT: usize = 9;
    let [single, double] = Customer::each();
    for (ours, theirs, number) in [(&single, &double, 2), (&double, &single, 1)] {
        let sealed = ours.seal(&pattern(2 * BLOCK + 5));
        let mut forged = sealed.clone();
        forged[SUITE_AT] = number;
        ours.refuses(&forged, "a header of the other suite");
        let own = frames(&sealed);
        let marked: Vec<Vec<u8>> =
            own.iter().map(|frame| [&frame[..1], &[number], &frame[2..]].concat()).collect();
        ours.refuses(&object(&sealed, &marked), "frames of the other suite");
        ours.refuses(&object(&forged, &marked), "header and frames of the other suite");
        let foreign = frames(&theirs.seal(&pattern(2 * BLOCK + 5)));
        for at in 0..own.len() {
            let mut mixed = own.clone();
            mixed[at] = foreign[at].clone();
            ours.refuses(&object(&sealed, &mixed), "a frame of an account of the other suite");
        }
    }
}

/// The outer ciphertext of one block with the inner tag, or the outer one, of another.
#[test]
fn a6_r5_pieces_of_two_frames_of_one_place_do_not_mix() {
    let customer = Customer::of(Suite::Double);
    let (one, twin) = (customer.seal(&pattern(100)), customer.seal(&pattern(100)));
    let end = one.len();
    let pieces =
        [HEADER_LEN + 8..HEADER_LEN + 32, HEADER_LEN + 32..end - 32, end - 32..end - 16, end - 16..end];
    for set in 1..15_u8 {
        let mut mixed = one.clone();
        for (bit, piece) in pieces.iter().enumerate().filter(|(bit, _)| set & (1 << bit) != 0) {
            assert!(bit < 4);
            mixed[piece.clone()].copy_from_slice(&twin[piece.clone()]);
        }
        customer.refuses(&mixed, "pieces of a twin");
    }
}

#[test]
fn f3_the_final_flag_cannot_be_set_cleared_or_moved() {
    const FLAGS_AT: usize = 3;
    for customer in Customer::each() {
        let sealed = customer.seal(&pattern(3 * BLOCK));
        let own = frames(&sealed);
        let mut cleared = own.clone();
        cleared[2][FLAGS_AT] = 0;
        assert!(customer.reader(object(&sealed, &cleared)).is_err(), "an object without an end");
        let mut set = own.clone();
        set[1][FLAGS_AT] = 1;
        customer.refuses(&object(&sealed, &set), "two ends");
        set.truncate(2);
        assert!(customer.reader(object(&sealed, &set)).is_err(), "an earlier end");
    }
}

#[test]
fn f3_a_stretched_or_shrunk_block_size_is_refused() {
    const BLOCK_SIZE_AT: usize = 10;
    for customer in Customer::each() {
        let sealed = customer.seal(&pattern(100));
        for log2 in (12..=24).filter(|log2| *log2 != sealed[BLOCK_SIZE_AT]) {
            let mut forged = sealed.clone();
            forged[BLOCK_SIZE_AT] = log2;
            assert_eq!(customer.reader(forged).unwrap_err().kind(), ErrorKind::Corrupt);
        }
    }
}

#[test]
fn f5_peek_tells_whose_object_it_is_and_refuses_the_rest() {
    for customer in Customer::each() {
        let sealed = customer.seal(b"x");
        let info = SealedObject::peek(&sealed).unwrap();
        assert_eq!(info, customer.reader(sealed.as_slice()).unwrap().info());
        assert_eq!((info.account, info.block_size.bytes()), (customer.account.id(), BLOCK));
        assert_eq!(SealedObject::peek(&sealed[..79]).unwrap_err().kind(), ErrorKind::Format);
        assert_eq!(SealedObject::peek(&[0; 200]).unwrap_err().kind(), ErrorKind::Format);
    }
}

/// One thing that is done to a stored object: piece `from` of it, or of another object, goes to `to`.
#[derive(Clone, Copy, Debug)]
enum Edit {
    Flip,
    Overwrite,
    Insert,
    Delete,
    Splice,
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// `PROPTEST_CASES=50000` makes a million of them.
    #[test]
    fn r5_forgeries_at_random_are_refused_or_change_nothing(
        len in 0..3 * BLOCK,
        double: bool,
        edits in prop::collection::vec(
            (
                prop::sample::select(vec![Edit::Flip, Edit::Overwrite, Edit::Insert, Edit::Delete, Edit::Splice]),
                any::<prop::sample::Index>(),
                any::<prop::sample::Index>(),
                // Whole frames half of the time.
                prop_oneof![Just(FRAME), 1..2 * FRAME],
                any::<bool>(),
            ),
            20,
        ),
    ) {
        let customer = Customer::of(if double { Suite::Double } else { Suite::Aes256Gcm });
        let frame = customer.frame();
        let plain = pattern(len);
        let (sealed, other) = (customer.seal(&plain), customer.seal(&plain));
        for (edit, from, to, size, on_frames) in edits {
            let place = |index: prop::sample::Index| match index.index(sealed.len()) {
                at if on_frames => HEADER_LEN + at / frame * frame,
                at => at,
            };
            let (from, to) = (place(from).min(sealed.len()), place(to).min(sealed.len()));
            let size = if size == FRAME { frame } else { size };
            let from = from..(from + size).min(sealed.len());
            let room = to..(to + from.len()).min(sealed.len());
            let mut forged = sealed.clone();
            match edit {
                Edit::Flip => forged[to.min(sealed.len() - 1)] ^= 1 << (size % 8),
                Edit::Overwrite => forged[room.clone()].copy_from_slice(&sealed[from][..room.len()]),
                Edit::Insert => drop(forged.splice(to..to, sealed[from].iter().copied())),
                Edit::Delete => drop(forged.drain(room)),
                Edit::Splice => forged[room.clone()].copy_from_slice(&other[room]),
            }
            // The header of the other object with all of its frames is the other object.
            if forged != sealed && forged != other {
                customer.refuses(&forged, "edited");
            }
        }
    }
}
