"""How well the detectors find labelled anomalies: measures of accuracy and the folders of series they are taken on."""
