"""DICOM files whose headers are marked where they tell of a patient, and damage to them."""

import random
from typing import Any

import pydicom

MARK = "QZXJV"
"""What all values have in them that could tell of a patient, and nothing else has."""


def mark(_: int, header: pydicom.Dataset) -> None:
    """Marks the values of a header that tell of a patient."""
    marked: dict[str, Any] = {
        "PatientName": f"{MARK}^Name", "PatientID": f"{MARK}1", "PatientAddress": f"{MARK} St",
        "OtherPatientNames": f"{MARK}^Other", "InstitutionName": f"{MARK} Hospital",
        "ReferringPhysicianName": f"{MARK}^Physician", "StudyDescription": f"{MARK} study",
        "AccessionNumber": f"{MARK}2", "StudyID": f"{MARK}3", "SeriesDescription": MARK,
        "PatientComments": f"{MARK} " * 20, "StationName": MARK,
    }  # fmt: skip
    for tag, value in marked.items():
        setattr(header, tag, value)
    header.PatientBirthDate = "19500101"
    header.add_new(0x00091001, "LO", f"{MARK} private")


def damage(content: bytes, generator: random.Random) -> bytes:
    """Returns a file with damage in its header."""
    damaged = bytearray(content)
    kind = generator.randrange(4)
    marks = [place for place in range(len(content)) if content.startswith(MARK.encode(), place)]
    if kind == 0:  # any bytes
        for _ in range(generator.randint(1, 4)):
            damaged[generator.randrange(132, marks[-1])] = generator.randrange(256)
    elif kind == 1:  # the length before a value that tells of a patient
        damaged[generator.choice(marks) - generator.choice((1, 2))] = generator.randrange(256)
    elif kind == 2:  # its representation or tag
        damaged[generator.choice(marks) - generator.randint(3, 8)] = generator.randrange(256)
    else:  # bytes that were lost
        place = generator.randrange(132, marks[-1])
        del damaged[place : place + generator.randint(1, 20)]
    return bytes(damaged)
