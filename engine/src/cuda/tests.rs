//! Handles and what becomes of them when the driver fails: nothing is freed twice, nothing that is in flight is
//! touched, and everything is given back in the end.
use super::{Context, DeviceBuffer, Lane, fake::FakeDriver};
use crate::Error;
use std::sync::Arc;

const SLOT: usize = 8192;

fn assert_baseline(driver: &FakeDriver, context: Arc<Context>) {
    drop(context);
    assert_eq!(driver.used_bytes(), 0);
    assert_eq!(driver.registered(), 0);
    assert_eq!(driver.streams(), 0);
    assert_eq!(driver.events(), 0);
    assert_eq!(driver.calls("cuDevicePrimaryCtxRelease"), 1);
    assert_eq!(driver.violations(), Vec::<String>::new());
}

#[test]
fn a_lane_carries_bytes_there_and_back() {
    let driver = FakeDriver::new(1 << 20);
    let context = driver.context();
    let buffer = DeviceBuffer::new(&context, 6000).unwrap();
    let mut lane = Lane::new(&context, SLOT).unwrap();
    lane.slot().unwrap()[..100].fill(7);
    lane.upload(buffer.address() + 50, 100).unwrap();
    let out = lane.download(buffer.address() + 40, 20).unwrap();
    assert_eq!(out, [[0xEE; 10], [7; 10]].concat());
    drop((buffer, lane));
    assert_baseline(&driver, context);
}

#[test]
fn an_exhausted_device_tells_wanted_free_and_total() {
    let driver = FakeDriver::new(1000);
    let context = driver.context();
    let _held = DeviceBuffer::new(&context, 300).unwrap();
    let Err(Error::DeviceOom {
        wanted,
        free,
        total,
    }) = DeviceBuffer::new(&context, 701)
    else {
        panic!("701 of 700 bytes were given");
    };
    assert_eq!((wanted, free, total), (701, 700, 1000));
}

#[test]
fn out_of_memory_is_told_even_when_memory_info_fails() {
    let driver = FakeDriver::new(1000);
    let context = driver.context();
    driver.fail("cuMemGetInfo", 1, 9, 999);
    assert!(matches!(
        DeviceBuffer::new(&context, 1001),
        Err(Error::DeviceOom {
            wanted: 1001,
            free: 0,
            total: 0
        })
    ));
}

#[test]
fn a_refused_free_is_told_and_tried_again_once_it_may_succeed() {
    let driver = FakeDriver::new(1000);
    let context = driver.context();
    let buffer = DeviceBuffer::new(&context, 300).unwrap();
    driver.fail("cuMemFree", 1, 1, 999);
    assert!(matches!(
        buffer.release(),
        Err(Error::Cuda {
            call: "cuMemFree",
            code: 999,
            ..
        })
    ));
    assert_eq!(context.unreleased_bytes(), 300);
    context.reclaim().unwrap();
    assert_eq!(context.unreleased_bytes(), 0);
    assert_eq!(driver.used_bytes(), 0);
    context.reclaim().unwrap();
    assert_baseline(&driver, context);
}

#[test]
fn a_free_refused_in_a_drop_is_noted() {
    let driver = FakeDriver::new(1000);
    let context = driver.context();
    let buffer = DeviceBuffer::new(&context, 300).unwrap();
    driver.fail("cuMemFree", 1, 1, 999);
    drop(buffer);
    assert!(context.last_note().is_some_and(|note| note.contains("999")));
    assert!(context.take_note().is_some());
    assert!(context.take_note().is_none());
    assert_baseline(&driver, context);
}

#[test]
fn an_address_that_the_driver_does_not_know_is_not_tried_again() {
    let driver = FakeDriver::new(1000);
    let context = driver.context();
    let buffer = DeviceBuffer::new(&context, 300).unwrap();
    driver.fail("cuMemFree", 1, 1, 1);
    assert!(buffer.release().is_err());
    assert_eq!(context.unreleased_bytes(), 0);
}

#[test]
fn a_slot_that_cannot_be_registered_stays_pageable_and_works() {
    let driver = FakeDriver::new(1 << 20);
    let context = driver.context();
    driver.fail("cuMemHostRegister", 1, 1, 2);
    let buffer = DeviceBuffer::new(&context, 10).unwrap();
    let mut lane = Lane::new(&context, SLOT).unwrap();
    assert!(lane.refusal().is_some());
    lane.slot().unwrap()[..10].fill(3);
    lane.upload(buffer.address(), 10).unwrap();
    assert_eq!(lane.download(buffer.address(), 10).unwrap(), [3; 10]);
    drop((buffer, lane));
    assert_eq!(driver.calls("cuMemHostUnregister"), 0);
    assert_baseline(&driver, context);
}

#[test]
fn a_stream_or_an_event_that_cannot_be_made_leaves_nothing_behind() {
    let driver = FakeDriver::new(1 << 20);
    let context = driver.context();
    driver.fail("cuStreamCreate", 1, 1, 999);
    assert!(Lane::new(&context, SLOT).is_err());
    driver.fail("cuEventCreate", 3, 3, 999);
    assert!(Lane::with_pieces(&context, SLOT, SLOT / 4).is_err());
    assert_baseline(&driver, context);
}

#[test]
fn a_slot_is_locked_until_the_copy_that_was_not_seen_to_end_has_ended() {
    let driver = FakeDriver::new(1 << 20);
    let context = driver.context();
    let buffer = DeviceBuffer::new(&context, 10).unwrap();
    let mut lane = Lane::new(&context, SLOT).unwrap();
    driver.fail("cuStreamSynchronize", 1, u64::MAX, 999);
    driver.fail("cuCtxSynchronize", 1, u64::MAX, 999);
    assert!(lane.upload(buffer.address(), 10).is_err());
    assert!(lane.slot().is_err(), "the copy may still read the slot");
    driver.stop_failing();
    assert!(lane.slot().is_ok());
    drop((buffer, lane));
    assert_baseline(&driver, context);
}

#[test]
fn a_failed_wait_for_the_stream_is_made_good_by_a_wait_for_the_context() {
    let driver = FakeDriver::new(1 << 20);
    let context = driver.context();
    let buffer = DeviceBuffer::new(&context, 10).unwrap();
    let mut lane = Lane::new(&context, SLOT).unwrap();
    driver.fail("cuStreamSynchronize", 1, 1, 999);
    assert!(lane.upload(buffer.address(), 10).is_err());
    assert_eq!(driver.calls("cuCtxSynchronize"), 1);
    assert!(lane.slot().is_ok());
    drop((buffer, lane));
    assert_baseline(&driver, context);
}

#[test]
fn a_slot_waits_for_a_copy_that_was_queued_and_is_said_to_have_failed() {
    let driver = FakeDriver::new(1 << 20);
    let context = driver.context();
    let old = DeviceBuffer::new(&context, 10).unwrap();
    let new = DeviceBuffer::new(&context, 10).unwrap();
    assert!(FakeDriver::poke(old.address(), &[1; 10]));
    let mut lane = Lane::new(&context, SLOT).unwrap();
    driver.deny(1);
    assert!(lane.download(old.address(), 10).is_err());
    lane.slot().unwrap()[..10].fill(7);
    // Whatever was still under way lands now.
    context.synchronize().unwrap();
    lane.upload(new.address(), 10).unwrap();
    assert_eq!(FakeDriver::peek(new.address(), 10), Some(vec![7; 10]));
    drop((old, new, lane));
    assert_baseline(&driver, context);
}

/// Two chunks of four pieces each, of which the bytes of piece `n` are `n`; what the device then holds.
fn two_chunks(lane: &mut Lane, to: &DeviceBuffer) -> Result<Vec<u8>, Error> {
    for chunk in 0..2 {
        let offset = chunk * SLOT as u64;
        lane.upload_by_pieces(to.address() + offset, SLOT, |at, piece| {
            piece.fill(((offset + at) / (SLOT as u64 / 4)) as u8);
            Ok(())
        })?;
    }
    lane.finish()?;
    Ok(FakeDriver::peek(to.address(), 2 * SLOT).expect("there is memory"))
}

fn eight_pieces() -> Vec<u8> {
    (0..8).flat_map(|piece| [piece; SLOT / 4]).collect()
}

#[test]
fn a_piece_is_not_filled_again_before_its_copy_has_ended_and_others_are_not_waited_for() {
    let driver = FakeDriver::new(1 << 20);
    driver.be_late();
    let context = driver.context();
    let buffer = DeviceBuffer::new(&context, 2 * SLOT as u64).unwrap();
    let mut lane = Lane::with_pieces(&context, SLOT, SLOT / 4).unwrap();
    assert_eq!(two_chunks(&mut lane, &buffer).unwrap(), eight_pieces());
    assert_eq!(driver.calls("cuEventCreate"), 4);
    assert_eq!(driver.calls("cuEventSynchronize"), 4);
    assert_eq!(driver.calls("cuStreamSynchronize"), 1);
    lane.upload_by_pieces(buffer.address(), SLOT, |_, piece| {
        piece.fill(1);
        Ok(())
    })
    .unwrap();
    lane.slot().unwrap().fill(9);
    assert_eq!(
        FakeDriver::peek(buffer.address(), SLOT),
        Some(vec![1; SLOT])
    );
    drop((buffer, lane));
    assert_baseline(&driver, context);
}

#[test]
fn pieces_tell_of_each_call_that_fails_and_nothing_is_in_flight_then() {
    for call in [
        "cuEventRecord",
        "cuEventSynchronize",
        "cuMemcpyHtoDAsync",
        "cuStreamSynchronize",
    ] {
        let driver = FakeDriver::new(1 << 20);
        driver.be_late();
        let context = driver.context();
        let buffer = DeviceBuffer::new(&context, 2 * SLOT as u64).unwrap();
        let mut lane = Lane::with_pieces(&context, SLOT, SLOT / 4).unwrap();
        driver.fail(call, 1, 1, 999);
        let error = two_chunks(&mut lane, &buffer).unwrap_err().to_string();
        assert!(error.contains(call), "{call}: {error}");
        lane.finish().unwrap();
        assert_eq!(two_chunks(&mut lane, &buffer).unwrap(), eight_pieces());
        drop((buffer, lane));
        assert_baseline(&driver, context);
    }
}

#[test]
fn a_wait_for_pieces_that_failed_in_other_hands_is_told_to_whom_they_belong() {
    let driver = FakeDriver::new(1 << 20);
    driver.be_late();
    let context = driver.context();
    let buffer = DeviceBuffer::new(&context, SLOT as u64).unwrap();
    let mut lane = Lane::with_pieces(&context, SLOT, SLOT / 4).unwrap();
    lane.upload_by_pieces(buffer.address(), SLOT, |_, _| Ok(()))
        .unwrap();
    driver.fail("cuStreamSynchronize", 1, 1, 999);
    assert!(lane.download(buffer.address(), 10).is_err());
    lane.download(buffer.address(), 10).unwrap();
    assert!(lane.finish().is_err(), "the pieces may not have arrived");
    lane.finish().unwrap();
    drop((buffer, lane));
    assert_baseline(&driver, context);
}

#[test]
fn what_became_of_pieces_is_told_once() {
    let driver = FakeDriver::new(1 << 20);
    driver.be_late();
    let context = driver.context();
    let buffer = DeviceBuffer::new(&context, SLOT as u64).unwrap();
    let mut lane = Lane::with_pieces(&context, SLOT, SLOT / 4).unwrap();
    let upload = |lane: &mut Lane| {
        lane.upload_by_pieces(buffer.address(), SLOT, |_, piece| {
            piece.fill(5);
            Ok(())
        })
    };
    upload(&mut lane).unwrap();
    driver.fail("cuStreamSynchronize", 1, 2, 999);
    driver.fail("cuCtxSynchronize", 1, 1, 999);
    assert!(lane.finish().is_err());
    assert!(upload(&mut lane).is_err(), "nothing was waited for");
    upload(&mut lane).unwrap();
    lane.finish().unwrap();
    assert_eq!(FakeDriver::peek(buffer.address(), 1), Some(vec![5]));
    drop((buffer, lane));
    assert_baseline(&driver, context);
}

#[test]
fn a_slot_under_a_copy_that_never_ends_is_not_given_back() {
    let driver = FakeDriver::new(1 << 20);
    let context = driver.context();
    let buffer = DeviceBuffer::new(&context, 10).unwrap();
    let mut lane = Lane::new(&context, SLOT).unwrap();
    driver.fail("cuStreamSynchronize", 1, u64::MAX, 999);
    driver.fail("cuCtxSynchronize", 1, u64::MAX, 999);
    assert!(lane.upload(buffer.address(), 10).is_err());
    drop(lane);
    assert_eq!(driver.registered(), 1);
    assert!(context.take_note().is_some());
}

#[test]
fn a_lost_context_refuses_further_calls_and_names_the_first_cause() {
    let driver = FakeDriver::new(1 << 20);
    let context = driver.context();
    let buffer = DeviceBuffer::new(&context, 10).unwrap();
    let mut lane = Lane::new(&context, SLOT).unwrap();
    driver.fail("cuMemcpyHtoDAsync", 1, 1, 700);
    assert!(lane.upload(buffer.address(), 10).is_err());
    let before = driver.calls("cuMemAlloc");
    let error = DeviceBuffer::new(&context, 10).err().unwrap();
    assert!(error.to_string().contains("700"), "{error}");
    assert_eq!(driver.calls("cuMemAlloc"), before);
    drop((buffer, lane));
    drop(context);
    assert_eq!(driver.calls("cuMemFree"), 0);
    assert_eq!(driver.calls("cuDevicePrimaryCtxRelease"), 1);
}

#[test]
fn initialisation_failures_keep_their_code() {
    use crate::ErrorKind;
    for (code, kind) in [(100, ErrorKind::NoDevice), (999, ErrorKind::CudaInit)] {
        let driver = FakeDriver::new(0);
        driver.fail("cuInit", 1, 1, code);
        let error = driver.try_context(0).err().unwrap();
        assert_eq!(error.kind(), kind);
        assert!(error.to_string().contains(&code.to_string()), "{error}");
        assert_eq!(driver.calls("cuDeviceGetCount"), 0);
    }
    let driver = FakeDriver::new(0);
    for ordinal in [1, u32::MAX] {
        let error = driver.try_context(ordinal).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::NoDevice);
    }
    assert_eq!(driver.calls("cuDevicePrimaryCtxRetain"), 0);
}
