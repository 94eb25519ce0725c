from pathlib import Path

from fedcondense.server.classifier import load_classifier

classifier = load_classifier(Path("runs/demo/seed-0/server/round-001/classifier"))
for film in sorted(Path("films").glob("*.png")):
    print(film.name, classifier.probabilities(film))
