"""Own scans: their embeddings, and their segmentations by what a run has trained.

Nothing is imported here.

    sources         the scans in folders, files and archives
    devices         where networks compute
    regions         points, boxes and labels that have an embedding of their own
    model_input     what an encoder takes of a scan, as it was trained
    embed           the embedding of one scan or region
    embedding_job   the embeddings of many scans, in a table
    feature_table   the table, which grows by shards
    trained         the network or the probe of a run
    segment         the segmentation of one scan
    segmenting_job  the segmentations of many scans, in a folder
    label_files     label maps on the grids of the files that they are of
    overlay         pictures of scans with their labels
    dicom_seg       label maps as DICOM SEG
"""
