//! Which GPUs are meant, and what shows them to a worker.

use super::*;
use crate::gpus::{Device, GpuRound};
use std::sync::Arc;
use std::time::Instant;

fn view(devices: &[(&str, Vendor, Option<&str>)]) -> GpuView {
    let device = |(uuid, vendor, parent): &(&str, Vendor, Option<&str>)| Device {
        uuid: (*uuid).to_owned(),
        name: "X".to_owned(),
        vendor: *vendor,
        parent_uuid: parent.map(str::to_owned),
        ..Device::default()
    };
    let devices = devices.iter().map(device).collect();
    let round = GpuRound { outcome: Outcome::Answered, devices, ..GpuRound::default() };
    GpuView { round: Arc::new(round), answered: Some(Instant::now()) }
}

fn mixed() -> GpuView {
    use Vendor::{Amd, Intel, Nvidia};
    view(&[
        ("GPU-a", Nvidia, None),
        ("MIG-a1", Nvidia, Some("GPU-a")),
        ("GPU-b", Nvidia, None),
        ("PCI-0000:03:00.0", Amd, None),
        ("GPU-4b2c1a9f8d3e6f7a", Amd, None),
        ("PCI-0000:09:00.0", Intel, None),
    ])
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn given(asked: &[&str]) -> Given {
    let (asked, view) = (names(asked), mixed());
    shown(&asked, &named(&asked, &view).unwrap().unwrap(), &view)
}

fn variables(given: &Given) -> String {
    let words: Vec<String> = given.variables.iter().map(|(key, value)| format!("{key}={value}")).collect();
    words.join(" ")
}

#[test]
fn numbers_stay_numbers_in_the_order_of_the_bus() {
    let both = given(&["1", "0"]);
    assert_eq!(variables(&both), "CUDA_VISIBLE_DEVICES=1,0 CUDA_DEVICE_ORDER=PCI_BUS_ID");
    assert_eq!(both.gpus, ["GPU-b", "GPU-a"]);
    assert!(both.hidden.is_empty());
}

#[test]
fn a_mixture_of_numbers_and_uuids_becomes_uuids() {
    assert_eq!(variables(&given(&["MIG-a1"])), "CUDA_VISIBLE_DEVICES=MIG-a1");
    assert_eq!(variables(&given(&["1", "GPU-a"])), "CUDA_VISIBLE_DEVICES=GPU-b,GPU-a");
}

#[test]
fn each_vendor_has_its_own_variables_and_counts_its_own() {
    // Numbers 2 and 3 of the machine are the first two of AMD's.
    let amd = given(&["2", "3"]);
    assert_eq!(variables(&amd), "ROCR_VISIBLE_DEVICES=0,GPU-4b2c1a9f8d3e6f7a");
    assert_eq!(amd.hidden, ["HIP_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL"]);
    assert_eq!(variables(&given(&["4"])), "ZE_AFFINITY_MASK=0 ZE_ENABLE_PCI_ID_DEVICE_ORDER=1");
    let both = given(&["0", "2"]);
    let wanted = "CUDA_VISIBLE_DEVICES=0 CUDA_DEVICE_ORDER=PCI_BUS_ID ROCR_VISIBLE_DEVICES=0";
    assert_eq!(variables(&both), wanted);
    assert!(!both.hidden.contains(&"CUDA_VISIBLE_DEVICES"));
}

#[test]
fn a_gpu_that_is_not_there_is_refused_with_those_that_are() {
    for bad in ["5", "GPU-c", "-1", "00x", ""] {
        let error = named(&names(&[bad]), &mixed()).unwrap_err();
        let StartError::Field { field: "gpus", message } = error else { panic!("{error}") };
        assert!(message.contains("GPU 1 (X) is GPU-b") && message.contains("slice MIG-a1"), "{message}");
    }
    let twice = named(&names(&["0", "GPU-a"]), &mixed()).unwrap_err().to_string();
    assert!(twice.contains("named twice"), "{twice}");
}

#[test]
fn without_a_driver_they_are_passed_on_as_they_were_named() {
    let unknown = GpuView::default();
    assert_eq!(named(&names(&["7", "GPU-x"]), &unknown).unwrap(), None);
    assert_eq!(variables(&as_named(&names(&["7", "GPU-x"]))), "CUDA_VISIBLE_DEVICES=7,GPU-x");
    assert_eq!(variables(&as_named(&names(&["7"]))), "CUDA_VISIBLE_DEVICES=7 CUDA_DEVICE_ORDER=PCI_BUS_ID");
    assert_eq!(as_named(&[]), Given::default());
}
